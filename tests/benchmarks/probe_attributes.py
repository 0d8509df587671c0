"""Can a small network read every attribute off the renders? Trained and tested on different people.

    python tests/benchmarks/probe_attributes.py --output results/renderer-probe.md

One convolutional network sees the picture at half size and the head at full size. Each attribute is scored on the
held-out pictures in which it can be seen (the column says which), against always answering the majority class there.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from finegpr.attributes import IDENTITY_ATTRIBUTES, ILLUMINATION, SCENE, VIEWPOINT, WEATHER, Attribute
from finegpr.render.camera import SOURCE_RIG
from finegpr.render.person import make_person
from finegpr.render.picture import Shot, render_one

HEIGHT, WIDTH = 480, 200
NUM_VIEWPOINTS = 12
LABELS: tuple[Attribute, ...] = (
    Attribute(name="viewpoint", values=tuple(f"{30 * k}deg" for k in range(NUM_VIEWPOINTS)), circular=True),
    WEATHER,
    ILLUMINATION,
    SCENE,
    *IDENTITY_ATTRIBUTES,
)
COLUMN = {attribute.name: k for k, attribute in enumerate(LABELS)}
SIZES = [len(attribute.values) for attribute in LABELS]
DARK = [ILLUMINATION.index(value) for value in ("midnight", "dawn", "night")]
VEILED = [WEATHER.index(value) for value in ("foggy", "blizzard")]


def _convolutions(*plan: tuple[int, int, int]) -> list[nn.Module]:
    """Convolutions of stride 2, each (channels before, after, kernel), with batch normalisation."""
    layers: list[nn.Module] = []
    for before, after, kernel in plan:
        layers += [nn.Conv2d(before, after, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return [*layers, nn.Flatten()]


class Probe(nn.Module):
    """Whole pictures (n, 3, 240, 100) and heads (n, 3, 96, 96) -> logits of all labels side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Sequential(*_convolutions((3, 16, 5), (16, 32, 3), (32, 64, 3), (64, 96, 3)))
        self.head = nn.Sequential(*_convolutions((3, 16, 5), (16, 32, 3), (32, 48, 3), (48, 64, 3)))
        self.logits = nn.Sequential(nn.Dropout(0.3), nn.Linear(96 * 15 * 7 + 64 * 6 * 6, sum(SIZES)))

    def forward(self, whole: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.logits(torch.cat((self.whole(scaled(whole)), self.head(scaled(head))), dim=1))
        return logits


def draw(identities: range, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One picture a person under uniform conditions, uint8: whole, averaged 2x2 from 480x200, and the part where heads
    are, at full size; and labels."""
    random = np.random.default_rng((seed, identities.start))
    images, heads, labels = [], [], []
    for identity in identities:
        person = make_person(seed, "minigpr", identity)
        v, w, i, s = (int(random.integers(n)) for n in SIZES[:4])
        shot = Shot(
            viewpoint=30.0 * v,
            weather=WEATHER.values[w],
            illumination=ILLUMINATION.values[i],
            scene=SCENE.values[s],
            seed=(seed, identity),
        )
        image = render_one(person, shot, SOURCE_RIG, height=HEIGHT, width=WIDTH)[0]
        half = image.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3)).astype(np.uint8)
        images.append(half.transpose(2, 0, 1))
        heads.append(image[8:104, 52:148].transpose(2, 0, 1))
        worn = [attribute.index(person.attributes[attribute.name]) for attribute in IDENTITY_ATTRIBUTES]
        labels.append([v, w, i, s, *worn])
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(heads)), torch.tensor(labels)


def scaled(images: torch.Tensor) -> torch.Tensor:
    return images.float().div_(255).sub_(0.35).div_(0.25)


def train(images: torch.Tensor, heads: torch.Tensor, labels: torch.Tensor, epochs: int) -> Probe:
    """Cross-entropy of all labels; mirrored pictures have mirrored viewpoints."""
    torch.manual_seed(0)
    net = Probe()
    steps = epochs * (len(images) // 32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: len(images) // 32 * 32].split(32):
            whole, head, target = images[rows], heads[rows], labels[rows]
            if torch.rand(()) < 0.5:
                whole, head, target = whole.flip(3), head.flip(3), target.clone()
                target[:, 0] = (6 - target[:, 0]) % NUM_VIEWPOINTS
            down, right = int(torch.randint(-5, 6, ())), int(torch.randint(-4, 5, ()))
            parts = net(whole.roll((down, right), (2, 3)), head.roll((down, right), (2, 3))).split(SIZES, dim=1)
            loss = torch.stack([nn.functional.cross_entropy(p, target[:, k]) for k, p in enumerate(parts)]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def visible(labels: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """Per label: a sentence on where it can be seen, and those rows."""

    def column(name: str) -> np.ndarray:
        return labels[:, COLUMN[name]]

    everywhere = np.ones(len(labels), bool)
    clear = ~np.isin(column("weather"), VEILED)
    lit = clear & ~np.isin(column("illumination"), DARK)
    front = np.abs((column("viewpoint") * 30 - 90 + 180) % 360 - 180) <= 60
    seen = dict.fromkeys(("viewpoint", "weather", "illumination"), ("everywhere", everywhere))
    seen["scene"] = ("clear air", clear)
    seen |= {attribute.name: ("lit, clear air", lit) for attribute in IDENTITY_ATTRIBUTES}
    seen["glasses"] = ("lit, clear air, front within 60deg", lit & front)
    return seen


def table(predicted: np.ndarray, labels: np.ndarray) -> list[str]:
    lines = [
        "| attribute | classes | seen in | pictures | majority | accuracy |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, (where, rows) in visible(labels).items():
        k = COLUMN[name]
        truth = labels[rows, k]
        majority = np.bincount(truth).max() / len(truth)
        accuracy = float((predicted[rows, k] == truth).mean())
        classes = len(LABELS[k].values)
        lines.append(f"| {name} | {classes} | {where} | {len(truth)} | {majority:.0%} | {accuracy:.0%} |")
    return lines


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/renderer-probe.md"))
    parser.add_argument("--identities", type=int, default=3000)
    parser.add_argument("--tested", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start = time.process_time()
    images, heads, labels = draw(range(1, given.identities + 1), seed=0)
    test_images, test_heads, test_labels = draw(range(8001, 8001 + given.tested), seed=0)
    drawn = time.process_time() - start
    net = train(images, heads, labels, given.epochs)
    with torch.no_grad():
        logits = torch.cat([net(*pair) for pair in zip(test_images.split(64), test_heads.split(64), strict=True)])
    predicted = torch.stack([part.argmax(1) for part in logits.split(SIZES, dim=1)], dim=1).numpy()
    took = time.process_time() - start
    text = "\n".join(
        [
            "# Renderer probe",
            "",
            f"A small convolutional network (4 layers) reads the attributes off {HEIGHT}x{WIDTH} renders, one",
            f"picture a person: {len(images)} people to train on, {len(test_images)} others to test on,",
            f"{given.epochs} epochs, seed 0. Processor time on one core: {drawn:.0f} s of drawing,",
            f"{took - drawn:.0f} s of training. Viewpoints are {NUM_VIEWPOINTS} of the {len(VIEWPOINT.values)}.",
            "",
            *table(predicted, test_labels.numpy()),
            "",
        ]
    )
    given.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
