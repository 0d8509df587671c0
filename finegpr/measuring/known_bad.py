"""Images that measuring could not read: nothing after it counts or draws them."""

from finegpr.catalog import Catalog
from finegpr.measuring.results import Measurements
from finegpr.parts import without


def without_bad(catalog: Catalog, measurements: Measurements) -> tuple[Catalog, str | None]:
    """The catalog ``without`` the bad images, and a line on them, None where there are none.

    Raises InputError for measurements of another catalog.
    """
    measurements.require_catalog(catalog)
    quarantine = measurements.quarantine
    found = quarantine[quarantine["of"] == "source"]
    is_bad = catalog.frame["path"].isin(found["path"]).to_numpy()
    if not is_bad.any():
        return catalog, None
    path, reason = found.iloc[0][["path", "reason"]]
    more = f" and {is_bad.sum() - 1} more" if is_bad.sum() > 1 else ""
    return without(catalog, is_bad), f"left out, as they could not be measured: {path} ({reason}){more}"
