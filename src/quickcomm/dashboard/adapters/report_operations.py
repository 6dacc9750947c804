"""The operations that tell about a time rather than one thing: the shift report, and what the model costs."""

from typing import Final

from quickcomm.contracts.usage import UsageReport
from quickcomm.dashboard.adapters.operations import LIMIT, OPERATIONS, TASK_EXAMPLE, Operation, Parameter
from quickcomm.dashboard.model.report import ShiftReport

NARRATIVES: Final = ("any", "local")


def _time(name: str, description: str, example: str) -> Parameter:
    schema = {"type": "string", "format": "date-time", "maxLength": 40}
    return Parameter(name=name, description=description, schema=schema, example=example)


_TIMES: Final = {"count": 9, "p50_s": 420.0, "p95_s": 1800.0}
_SHIFT_EXAMPLE: Final = {
    "since": "2026-05-09T00:00:00.000Z",
    "until": "2026-05-09T08:00:00.000Z",
    "hours": 8.0,
    "generated_at": "2026-05-09T08:00:00.000Z",
    "utterances": 120,
    "requests": 12,
    "by_department": [{"name": "housekeeping", "requests": 12, "done": 9}],
    "by_intent": [{"name": "request_item", "requests": 12, "done": 9}],
    "by_urgency": [{"name": "normal", "requests": 12, "done": 9}],
    "done": _TIMES,
    "acknowledged": _TIMES,
    "slowest": [{"task": {**TASK_EXAMPLE, "status": "done"}, "seconds": 1800.0}],
    "open_now": 1,
    "open": [{"task": TASK_EXAMPLE, "seconds": 1477.0}],
    "emergencies": 0,
    "emergencies_unseen": 0,
    "emergencies_seen": {"count": 0, "p50_s": None, "p95_s": None},
    "emergency": [],
    "narrative": {"text": "In 8 h, 120 utterances with 12 requests.", "source": "local"},
}
_SPENT: Final = {"calls": 420, "prompt_tokens": 310000, "completion_tokens": 42000, "cost": 0.0717}
_USAGE_EXAMPLE: Final = {
    "state": "below",
    "currency": "USD",
    "time_zone": "Europe/Paris",
    "cap": {"cost": 2.0, "tokens": 0, "resets_at": "2026-05-09T22:00:00Z"},
    "today": {"day": "2026-05-09", **_SPENT},
    "days": [{"day": "2026-05-09", **_SPENT}],
    "conversations": [{"conversation_id": "shift-1", **_SPENT, "last_call_at": "2026-05-09T07:35:25Z"}],
}

REPORTS: Final = (
    Operation(
        id="getShiftReport",
        method="GET",
        path="/v1/reports/shift",
        tag="reports",
        summary="What came in, what is open, what was slow; the last 8 hours where nothing else is asked for",
        parameters=(
            _time("since", "Said at or after this time.", "2026-05-09T00:00:00Z"),
            _time("until", "Said before this time; at most 31 days after `since`.", "2026-05-09T08:00:00Z"),
            Parameter(
                name="narrative",
                description="Who may write the sentences: `any` asks the language model where there is one, which "
                "can take seconds; `local` does not.",
                schema={"type": "string", "enum": list(NARRATIVES), "default": "any"},
                example="local",
            ),
        ),
        answer=ShiftReport,
        example=_SHIFT_EXAMPLE,
        errors=(400,),
    ),
    Operation(
        id="getUsage",
        method="GET",
        path="/v1/usage",
        tag="reports",
        summary="What the language model costs, by day and by conversation, and the day's cap",
        parameters=(
            Parameter(
                name="conversation",
                description="Only this conversation.",
                schema={"type": "string", "maxLength": 200},
                example="shift-1",
            ),
            LIMIT,
        ),
        answer=UsageReport,
        example=_USAGE_EXAMPLE,
        errors=(400,),
    ),
)
ALL_OPERATIONS: Final = (*OPERATIONS, *REPORTS)
