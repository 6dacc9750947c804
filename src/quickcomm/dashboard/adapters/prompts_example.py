"""What `GET /v1/prompts` answers, as an example; used by the OpenAPI document."""

from typing import Final

_NUMBERS: Final = {
    "cases": 200,
    "failed": 0,
    "score": 0.947,
    "intent": 0.955,
    "department": 0.94,
    "urgency": 0.93,
    "rooms": 0.985,
    "items": 0.925,
    "dangers": 14,
    "dangers_missed": 0,
    "calibration_error": 0.041,
    "latency_p50_ms": 640.0,
    "latency_p95_ms": 1180.0,
    "prompt_tokens": 262000,
    "completion_tokens": 19800,
    "cost": 0.0512,
}
_PROMPT: Final = {
    "id": "5d41402abc4b",
    "name": "shorter",
    "note": "Half the rules on urgency",
    "added_at": "2026-05-09T07:10:00.000Z",
    "added_by": "ada",
}
_BUILT_IN: Final = {**_PROMPT, "id": "9f86d081884c", "name": "built-in", "note": "", "added_by": "QuickComm"}
_CANARY: Final = {
    "at": "2026-05-09T07:31:00.000Z",
    "by": "ada",
    "action": "canary",
    "prompt_id": "5d41402abc4b",
    "name": "shorter",
    "against_id": "9f86d081884c",
    "weight": 10,
    "forced": False,
    "note": "",
    "evidence": {
        "against_id": "9f86d081884c",
        "set_id": "7d793037a076",
        "set_name": "200 of the 3445 phrases of hospitality",
        "model": "qwen2.5-7b-instruct",
        "candidate": _NUMBERS,
        "live": {**_NUMBERS, "score": 0.941, "urgency": 0.9},
        "falls_below": [],
    },
}
PROMPTS_EXAMPLE: Final = {
    "connected": True,
    "model": "qwen2.5-7b-instruct",
    "problem": "",
    "live": {"prompt": _BUILT_IN, "weight": 90, "event": None},
    "canary": {"prompt": _PROMPT, "weight": 10, "event": _CANARY},
    "versions": [_PROMPT, _BUILT_IN],
    "events": [_CANARY],
}
