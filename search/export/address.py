"""Addresses of databases as they may be shown: without what lets somebody in."""

import re
from urllib.parse import unquote

_MASK = "***"
_FILE = "sqlite:///"
# After the scheme a user, who may hold an @; then all up to the last @ of the address, because of what passwords hold.
_PASSWORD = re.compile(r"(?s)^([A-Za-z][\w+.-]+:/*[^:/]*):(.*)@")
_SETTING = re.compile(r"([?&;][^=&;]*=)([^&;]*)")


def without_password(address: str) -> str:
    """The address with a mask for its password, and for the values of its settings, which may be passwords too.

    Rather too much is masked than too little. The path of a file is left as it is.
    """
    if address.startswith(_FILE):
        return address
    masked = _PASSWORD.sub(rf"\1:{_MASK}@", address)
    return _SETTING.sub(rf"\1{_MASK}", masked) if masked != address or "://" in address else address


def tells_password(text: str, address: str) -> bool:
    """Whether a text, such as the error of a driver, has something in it that ``without_password`` masks."""
    if address.startswith(_FILE):
        return False
    hidden = [found[2] for pattern in (_PASSWORD, _SETTING) for found in pattern.finditer(address)]
    return any(each and (each in text or unquote(each) in text) for each in hidden)
