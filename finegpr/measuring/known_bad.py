"""Images that measuring could not read: nothing after it counts or draws them."""

from dataclasses import replace

import numpy as np

from finegpr.catalog import Catalog
from finegpr.measuring.results import Measurements


def without_bad(catalog: Catalog, measurements: Measurements) -> tuple[Catalog, str | None]:
    """The same rows, in which a bad image is junk of unknown attributes, and a line on them, None where there are none.

    So it is in no cell, fills no budget and is never drawn, and rows keep their numbers. Raises InputError for
    measurements of another catalog.
    """
    measurements.require_catalog(catalog)
    quarantine = measurements.quarantine
    found = quarantine[quarantine["of"] == "source"]
    is_bad = catalog.frame["path"].isin(found["path"]).to_numpy()
    if not is_bad.any():
        return catalog, None
    frame = catalog.frame.copy()
    frame["identity"] = np.where(is_bad, -1, frame["identity"])
    for attribute in catalog.attributes:
        frame[attribute.name] = frame[attribute.name].where(~is_bad)
    path, reason = found.iloc[0][["path", "reason"]]
    more = f" and {is_bad.sum() - 1} more" if is_bad.sum() > 1 else ""
    return replace(catalog, frame=frame), f"left out, as they could not be measured: {path} ({reason}){more}"
