"""perf.handler: each way is measured, and every block freed."""

from perf.handler import measure


def test_every_way_is_measured() -> None:
    found = measure(rounds=1)
    assert [(name, what) for name, what, _ in found] == [
        ("1×10", "read, protobuf"),
        ("1×10", "read, walked"),
        ("1×10", "read, known form"),
        ("1×10", "handled, copied"),
        ("1×3×224×224", "read, protobuf"),
        ("1×3×224×224", "read, walked"),
        ("1×3×224×224", "read, known form"),
        ("1×3×224×224", "handled, copied"),
        ("1×3×224×224", "handled, in place"),
    ]
    assert all(took > 0 for _, _, took in found)
