"""Dataset layouts: one file and one line each."""

from finegpr.layouts import finegpr, folder, market1501, table
from finegpr.layouts.listing import Layout

LAYOUTS: dict[str, Layout] = {
    "finegpr": finegpr.index,
    "market1501": market1501.index,
    "table": table.index,
    "folder": folder.index,
}
