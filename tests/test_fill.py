"""The controller: launches what is missing and nothing else, however often and by however many it is started."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from harness import attempts, launching, lease, registry
from harness.errors import BadRecipe, Held, Refused, Unavailable, UnknownName
from slurm import fill, states, submission, submit
from slurm.profiles import Profile
from slurm.submission import Item, Submission

NAME = "untrained_digits_pixels_e0"
ONE = '[[group]]\nrecipes = ["untrained_digits_pixels_e0"]\nseeds = 2\n'


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Submission]:
    """Submissions whose workers died before they did anything."""
    found: list[Submission] = []

    def launch(made: Submission, profile: Profile, place: tuple[int, int]) -> list[str]:
        found.append(made)
        return ["7"]

    monkeypatch.setattr(submit, "_launch_local", launch)
    return found


def plan(folder: Path, text: str = ONE) -> str:
    (folder / "plan.toml").write_text(text)
    return str(folder / "plan.toml")


def finish(item: Item, runs: Path, *protocols: str) -> None:
    path = item.path(runs)
    path.mkdir(parents=True, exist_ok=True)
    evals = [{"protocol": registry.protocol_id(name), "split": "test"} for name in protocols]
    (path / "record.json").write_text(json.dumps({"evals": evals}))


def test_it_trains_what_has_no_record_then_evaluates_what_lacks_a_protocol(
    tmp_path: Path, launched: list[Submission]
) -> None:
    text = plan(tmp_path, ONE + 'protocols = ["collapse", "linear"]\n')
    first = fill.tick(text, tmp_path, "local", None)
    assert (first.counts, first.left) == ({"missing": 2}, 2)
    assert [str(item) for _, _, item in launched[0].items()] == [f"{NAME} seed 0", f"{NAME} seed 1"]
    trained = [item for _, _, item in launched[0].items()]
    finish(trained[0], tmp_path, "knn", "linear")
    second = fill.tick(text, tmp_path, "local", None)
    assert second.counts == {"missing": 2}  # a training of one, an evaluation of the other
    stages = {item.stage: item for one in launched[1:] for _, _, item in one.items()}
    assert (stages["train"].seed, stages["evaluate"].seed, stages["evaluate"].protocols) == (1, 0, ("collapse",))
    finish(trained[0], tmp_path, "knn", "linear", "collapse")
    finish(trained[1], tmp_path, "linear", "collapse")
    done = fill.tick(text, tmp_path, "local", None)
    assert (done.counts, done.left, done.reports) == ({"complete": 2}, 0, [])


def test_what_is_under_way_is_not_launched_again(
    tmp_path: Path, launched: list[Submission], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill.tick(plan(tmp_path), tmp_path, "local", None)
    monkeypatch.setattr(states, "local_workers", lambda one: [7])
    again = fill.tick(plan(tmp_path), tmp_path, "local", None)
    assert (again.counts, again.left, len(launched)) == ({"pending": 2}, 2, 1)


def test_what_slurm_could_not_launch_and_holds_is_released(
    tmp_path: Path, launched: list[Submission], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "submissions").mkdir()
    first, second = (item for items, _ in fill.read_plan(plan(tmp_path)) for item in items)
    held = states.State("held", "launch failed requeued held", "12_3")
    monkeypatch.setattr(states, "survey", lambda some: {first: held, second: states.State("pending", "", "12_4")})
    released: list[str] = []
    monkeypatch.setattr(fill.scheduler, "release", released.extend)
    tick = fill.tick(plan(tmp_path), tmp_path, "local", None)
    assert (released, tick.released, tick.left, len(launched)) == (["12_3"], 1, 2, 0)


def test_what_is_for_a_person_to_decide_is_left_alone(tmp_path: Path, launched: list[Submission]) -> None:
    fill.tick(plan(tmp_path), tmp_path, "local", None)
    first, second = (item.path(tmp_path) for _, _, item in launched[0].items())
    first.mkdir(parents=True)
    attempts.cancel_mark(first).touch()
    attempts.refuse(second, "no data")
    tick = fill.tick(plan(tmp_path), tmp_path, "local", None)
    assert (tick.counts, tick.left, len(launched)) == ({"cancelled": 1, "refused": 1}, 0, 1)
    assert launching.fill(plan(tmp_path), tmp_path, "local", None, None) == 3


def test_of_two_controllers_one_works(tmp_path: Path, launched: list[Submission]) -> None:
    (tmp_path / "submissions").mkdir()
    with lease.hold(tmp_path / "submissions", {}):
        with pytest.raises(Held):
            fill.tick(plan(tmp_path), tmp_path, "local", None)
        assert launching.fill(plan(tmp_path), tmp_path, "local", None, None) == 0
    assert not launched


def test_a_refusal_ends_it_at_the_first_look_and_not_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full, mistake = Refused("sbatch refused: QOSMaxSubmitJobPerUserLimit"), Refused("sbatch refused: no such partition")
    some, none = fill.Tick(Counter(missing=2), [], 2, 0), fill.Tick(Counter(complete=2), [], 0, 0)
    story: list[fill.Tick | Exception] = [some, full, Unavailable("slurmctld does not answer"), none]

    def tick(*words: object) -> fill.Tick:
        if isinstance(now := story.pop(0), Exception):
            raise now
        return now

    monkeypatch.setattr(fill, "tick", tick)
    monkeypatch.setattr(launching.time, "sleep", lambda seconds: None)
    assert launching.fill("demo", tmp_path, "local", 60.0, None) == 0
    assert "QOSMaxSubmitJobPerUserLimit; looking again in 60 s" in capsys.readouterr().out
    story.append(mistake)
    with pytest.raises(Refused):
        launching.fill("demo", tmp_path, "local", 60.0, None)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("[[group]]\nrecipes = ['vicrg_digits_r10w16_e50']\nseeds = 1", UnknownName, "no recipe 'vicrg_digits"),
        ("[[group]]\nrecipes = ['a']\nseeds = '2'", BadRecipe, "seeds is '2', expected int"),
        ("[[group]]\nseeds = 2", BadRecipe, r"a group needs recipes = \[...\] and seeds = 1 or more"),
        (
            "[[group]]\nrecipes = ['a']\nseed = 2\nseeds = 1",
            UnknownName,
            "no key of a group 'seed'; did you mean 'seeds'",
        ),
        (
            "[[group]]\nrecipes = ['a']\nseeds = 1\nprotocols = ['kn']",
            UnknownName,
            "no protocol 'kn'; did you mean 'knn'",
        ),
        ("seeds = 1", BadRecipe, r"has no \[\[group\]\]"),
        ("[[group]", BadRecipe, "is not TOML"),
    ],
)
def test_a_plan_with_a_mistake(text: str, error: type, says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        fill.read_plan(plan(tmp_path, text))


def test_a_plan_that_does_not_exist() -> None:
    with pytest.raises(UnknownName, match=r"no plan 'dmo'; did you mean 'demo'\?"):
        fill.read_plan("dmo")


@pytest.mark.parametrize("name", [path.stem for path in (registry.ROOT / "sweeps").glob("*.toml")])
def test_the_plans_that_are_shipped(name: str) -> None:
    wanted = [item.recipe for items, _ in fill.read_plan(name) for item in items]
    assert set(wanted) <= set(registry.recipe_names())
    assert len(wanted) > 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # workers outlive who started them
def test_for_real_on_this_machine(tmp_path: Path) -> None:
    """A training, then an evaluation that its record lacks, by workers in the background; then one that cannot be."""
    group = f'[[group]]\nrecipes = ["{NAME}"]\nseeds = 1\n'
    run_until_nothing_is_left(plan(tmp_path, group), tmp_path, {"complete": 1})
    (file,) = tmp_path.glob("*/*/seed-0/record.json")
    record = json.loads(file.read_text())
    whole = sorted(row["protocol"] for row in record["evals"])
    record["evals"] = [row for row in record["evals"] if row["protocol"] != "collapse"]
    file.write_text(json.dumps(record))
    run_until_nothing_is_left(plan(tmp_path, group + 'protocols = ["collapse"]\n'), tmp_path, {"complete": 1})
    assert sorted(row["protocol"] for row in json.loads(file.read_text())["evals"]) == whole
    text = plan(tmp_path, group + 'protocols = ["factor_regression"]\n')
    run_until_nothing_is_left(text, tmp_path, {"refused": 1})
    (refused,) = [line for line in attempts.read(file.parent) if line["event"] == "refused"]
    assert refused["protocols"] == ["factor_regression"]
    assert len(submission.ids(tmp_path)) == 3


def run_until_nothing_is_left(text: str, runs: Path, counts: dict[str, int]) -> None:
    deadline = time.monotonic() + 120
    while (tick := fill.tick(text, runs, "local", None)).left and time.monotonic() < deadline:
        time.sleep(0.5)
    assert tick.counts == counts


def test_the_plan_of_the_field_has_every_published_method_that_has_a_recipe_on_digits() -> None:
    digests = (registry.ROOT / "tests" / "golden" / "digests.txt").read_text()
    published = [line.split()[0] for line in digests.splitlines() if "_digits_" in line]
    planned = [item.recipe for items, _ in fill.read_plan("field") for item in items]
    where = registry.recipe_names()
    assert {where[name] for name in planned} == {where[name] for name in published}
