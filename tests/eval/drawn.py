"""The charts of a report's page."""

from __future__ import annotations

import json
import re

from altair.utils.schemapi import validate_jsonschema
from altair.vegalite import load_schema

from coe.eval.report.page import Spec


def charts_of_page(html: str) -> dict[str, Spec]:
    """Name -> specification of each, all of which keep to Vega-Lite's schema."""
    found = re.search(r'id="specs">(.*?)</script>', html, re.S)
    charts: dict[str, Spec] = json.loads(found[1])
    for spec in charts.values():
        validate_jsonschema(spec, load_schema())
    return charts
