"""An adventure in containers: other people's services are played, API and worker share the files."""

from __future__ import annotations

from typing import Any

from tests.compose.stack import Stack, eventually


def test_an_adventure_goes_on_through_three_decisions(stack: Stack) -> None:
    wanted = {"language": "es", "native_language": "en", "premise": "A lighthouse."}
    begun = stack.api.post("/adventures", json=wanted)
    assert (begun.status_code, begun.json()["status"]) == (201, "awaiting_first_entry")
    path = f"/adventures/{begun.json()['id']}"

    def read(entries: int) -> dict[str, Any]:
        """The adventure, when it has so many entries."""

        def ask() -> dict[str, Any] | None:
            now = stack.api.get(path).raise_for_status().json()
            return now if [each["status"] for each in now["entries"]] == ["complete"] * entries else None

        found = eventually(ask, within=60)
        assert found is not None
        return found

    for entries in (1, 2, 3):
        choice = read(entries)["entries"][-1]["choices"][0]["id"]
        decided = stack.api.post(f"{path}/decisions", json={"choice_id": choice})
        assert decided.status_code == 201, decided.text
    adventure = read(4)
    assert adventure["status"] == "active"
    assert len({entry["text"] for entry in adventure["entries"]}) == 4
    for entry in adventure["entries"]:
        assert entry["translation"] == f"[en] {entry['text']}"
        assert stack.api.get(entry["audio_url"]).content[:4] == b"RIFF"
