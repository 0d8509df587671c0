"""Seven weathers and seven illuminations: sun, sky, fog, snow, lamps and exposure.

An illumination places and colours the sun; a weather filters it. The gains are fitted so that mean luminance per
condition follows measured renders of FineGPR (the test's golden file states the figures).
"""

import math
from dataclasses import dataclass

import numpy as np

from finegpr.attributes import ILLUMINATION, WEATHER
from finegpr.errors import InputError

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Illumination:
    """The clear-sky light of one time of day. Angles in degrees (azimuth clockwise from the panorama's seam);
    ``sun`` and ``sky`` are linear RGB; ``lamps`` 0-1; ``gain`` multiplies everything that is reflected."""

    elevation: float
    azimuth: float
    sun: Colour
    sky: Colour
    lamps: float
    gain: float


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What one weather does to light: shares of ``sun`` and ``sky`` let through, ``fog`` per metre with its tint,
    ``clouds`` and ``snow`` cover 0-1, ``flakes`` and their ``wind`` slant, ``saturation`` and ``gain``."""

    sun: float
    sky: float
    tint: Colour
    fog: float
    fog_tint: Colour
    clouds: float
    snow: float
    flakes: float
    wind: float
    saturation: float
    gain: float


ILLUMINATIONS: dict[str, Illumination] = {
    "midnight": Illumination(
        elevation=58, azimuth=20, sun=(0.40, 0.48, 0.72), sky=(0.30, 0.36, 0.52), lamps=1.0, gain=0.134
    ),
    "dawn": Illumination(
        elevation=11, azimuth=80, sun=(0.70, 0.55, 0.52), sky=(0.40, 0.44, 0.58), lamps=0.7, gain=0.154
    ),
    "forenoon": Illumination(
        elevation=38, azimuth=115, sun=(1.10, 1.04, 0.95), sky=(0.30, 0.33, 0.36), lamps=0.0, gain=0.389
    ),
    "noon": Illumination(
        elevation=70, azimuth=180, sun=(1.30, 1.22, 1.02), sky=(0.30, 0.32, 0.34), lamps=0.0, gain=0.519
    ),
    "afternoon": Illumination(
        elevation=31, azimuth=245, sun=(1.85, 1.20, 0.66), sky=(0.34, 0.29, 0.24), lamps=0.0, gain=0.598
    ),
    "dusk": Illumination(
        elevation=10, azimuth=282, sun=(2.00, 0.90, 0.48), sky=(0.46, 0.31, 0.27), lamps=0.35, gain=0.325
    ),
    "night": Illumination(
        elevation=40, azimuth=310, sun=(0.30, 0.42, 0.86), sky=(0.20, 0.30, 0.58), lamps=1.0, gain=0.141
    ),
}

WEATHERS: dict[str, Weather] = {
    "sunny": Weather(
        sun=1.0,
        sky=1.0,
        tint=(1.02, 1, 0.96),
        fog=0.0008,
        fog_tint=(0.85, 0.95, 1.1),
        clouds=0.05,
        snow=0,
        flakes=0,
        wind=0,
        saturation=0.92,
        gain=3.31,
    ),
    "clouds": Weather(
        sun=0.62,
        sky=1.15,
        tint=(1.01, 1, 0.97),
        fog=0.003,
        fog_tint=(0.95, 0.98, 1.05),
        clouds=0.5,
        snow=0,
        flakes=0,
        wind=0,
        saturation=0.88,
        gain=2.01,
    ),
    "overcast": Weather(
        sun=0.18,
        sky=1.25,
        tint=(0.98, 1, 1.0),
        fog=0.008,
        fog_tint=(0.97, 1, 1.02),
        clouds=0.95,
        snow=0,
        flakes=0,
        wind=0,
        saturation=0.88,
        gain=0.85,
    ),
    "foggy": Weather(
        sun=0.06,
        sky=1.15,
        tint=(0.92, 0.99, 1.12),
        fog=0.12,
        fog_tint=(0.82, 0.94, 1.28),
        clouds=1,
        snow=0,
        flakes=0,
        wind=0,
        saturation=0.9,
        gain=0.942,
    ),
    "neutral": Weather(
        sun=0.40,
        sky=0.85,
        tint=(1, 1, 1),
        fog=0.002,
        fog_tint=(0.97, 1, 1.03),
        clouds=0.75,
        snow=0,
        flakes=0,
        wind=0,
        saturation=0.7,
        gain=1.04,
    ),
    "blizzard": Weather(
        sun=0.10,
        sky=1.15,
        tint=(0.98, 1, 1.01),
        fog=0.05,
        fog_tint=(0.97, 1, 1.02),
        clouds=1,
        snow=0.7,
        flakes=1.0,
        wind=2.2,
        saturation=0.75,
        gain=0.687,
    ),
    "snowlight": Weather(
        sun=0.90,
        sky=1.35,
        tint=(1, 1, 0.98),
        fog=0.006,
        fog_tint=(1, 1, 1),
        clouds=0.4,
        snow=1.0,
        flakes=0.3,
        wind=0.3,
        saturation=0.85,
        gain=2.08,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Light:
    """The light of one image, linear RGB float32: ``to_sun`` (3,) points at the sun in the frame asked for."""

    to_sun: np.ndarray
    sun: np.ndarray
    sky: np.ndarray
    bounce: np.ndarray
    fog: float
    fog_colour: np.ndarray
    clouds: float
    snow: float
    flakes: float
    wind: float
    lamps: float
    saturation: float


def direction(azimuth: float, elevation: float) -> np.ndarray:
    """Unit vector of an azimuth (degrees, 0 = -z, 90 = +x) and elevation (degrees), float32."""
    a, e = math.radians(azimuth), math.radians(elevation)
    return np.array((math.cos(e) * math.sin(a), math.sin(e), -math.cos(e) * math.cos(a)), np.float32)


def make_light(weather: str, illumination: str, *, azimuth_offset: float = 0.0) -> Light:
    """The light of a condition, the sun turned by ``azimuth_offset`` degrees. Raises InputError for unknown names."""
    if weather not in WEATHERS or illumination not in ILLUMINATIONS:
        raise InputError(
            f"no light for weather {weather!r}, illumination {illumination!r}; "
            f"weathers: {', '.join(WEATHER.values)}; illuminations: {', '.join(ILLUMINATION.values)}"
        )
    air, day = WEATHERS[weather], ILLUMINATIONS[illumination]
    gain = day.gain * air.gain
    tint = np.array(air.tint, np.float32)
    sun = np.array(day.sun, np.float32) * tint * np.float32(air.sun * gain)
    # what clouds take from the sun they scatter back into the sky
    scattered = 0.35 * (1 - air.sun) * np.array(day.sun, np.float32).mean()
    sky = (np.array(day.sky, np.float32) + np.float32(scattered)) * tint * np.float32(air.sky * gain)
    height = math.sin(math.radians(day.elevation))
    ground = np.float32(0.35 if air.snow < 0.1 else 0.75)
    fog_colour = (sky * 0.95 + sun * np.float32(0.3 * height)) * np.array(air.fog_tint, np.float32)
    return Light(
        to_sun=direction(day.azimuth + azimuth_offset, day.elevation),
        sun=sun,
        sky=sky,
        bounce=ground * (sky * 0.5 + sun * np.float32(0.5 * height)),
        fog=air.fog,
        fog_colour=fog_colour.astype(np.float32),
        clouds=air.clouds,
        snow=air.snow,
        flakes=air.flakes,
        wind=air.wind,
        lamps=day.lamps,
        saturation=air.saturation,
    )
