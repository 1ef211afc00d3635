"""What a study's page carries for its script."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any


def page_data(page: str) -> dict[str, Any]:
    found = re.search(r'id="data">([A-Za-z0-9+/=]*)</script>', page)
    assert found
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return data
