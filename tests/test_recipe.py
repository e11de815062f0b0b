"""--recipe: flags from a file."""

import json

import pytest

import main
from engine.advice import from_scratch, inference_command
from errors import UserError
from opts import FLAGS, Options
from parsing import parse_opts
from recipe import FOLDER, describe_recipe, recipe_names
from tests.runs import make_dataset, small_flags, small_run

PATHS = ["--video_path", "v", "--annotation_path", "a", "--result_path", "r"]


def parse(recipe, *flags):
    return parse_opts([*PATHS, "--recipe", str(recipe), *flags])


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "own.txt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", recipe_names())
def test_the_recipes_are_accepted(name):
    options = parse(name, "--pretrain_path", "w.pth")
    assert options.recipe == name
    assert "learning_rate" in options.from_recipe
    assert f"recipe {name}: " in describe_recipe(options)


def test_the_recipe_of_the_original_is_the_defaults():
    options, defaults = parse("original"), Options()
    lines = (FOLDER / "original.txt").read_text(encoding="utf-8").splitlines()
    named = {line.split()[0].removeprefix("--") for line in lines if line.startswith("--")}
    assert named == options.from_recipe
    for name in FLAGS.keys() - {"recipe", "video_path", "annotation_path", "result_path"}:
        default = 128 if name == "inference_batch_size" else getattr(defaults, name)
        assert getattr(options, name) == default, name


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_defaults(written):
    path = written("# mine\n\n--batch_size 8  # small\n--ema 0.9\n--nesterov\n"
                   "--multistep_milestones 3 5\n")  # fmt: skip
    options = parse(path, "--batch_size", "6", "--n_epochs", "7")
    assert (options.batch_size, options.ema, options.n_epochs) == (6, 0.9, 7)
    assert options.nesterov
    assert options.multistep_milestones == (3, 5)
    assert options.from_recipe == {"ema", "nesterov", "multistep_milestones"}
    assert options.given >= {"ema", "batch_size", "n_epochs", "recipe"}
    expected = f"recipe {path}: --ema 0.9 --nesterov --multistep_milestones 3 5"
    assert sorted(describe_recipe(options).split()) == sorted(expected.split())
    assert describe_recipe(parse_opts(PATHS)) is None


def test_an_unknown_recipe_lists_the_known_ones(capsys):
    assert main.main([*PATHS, "--recipe", "finetun"]) == 2
    known = "finetune head original scratch scratch_small"
    expected = f"error: --recipe finetun: no such file; the known recipes are {known}\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("learning_rate 0.1", "'learning_rate' is no flag; write lines such as --ema 0.99"),
        ("--learning_rat 0.1", "'--learning_rat' is no flag"),
        ("--learning_rate=0.1", "'--learning_rate=0.1' is no flag"),
        ("--recipe head", "--recipe belongs on the command line, not in a recipe"),
        ("--result_path x", "--result_path belongs on the command line"),
        ("--pretrain_path x", "--pretrain_path belongs on the command line"),
        ("--ema 0.9 --nesterov", "write one flag per line"),
        ("--nesterov -h", "write one flag per line"),
        ("--ema", "argument --ema: expected one argument"),
        ("--ema high", "argument --ema: invalid float value: 'high'"),
        ("--ema 1", "--ema 1: must be from 0 to less than 1"),
        ("--nesterov yes", "unrecognized arguments: yes"),
        ("--batch_size 4", "--batch_size is set twice"),
        ("--ft_begin_module 'fc", "No closing quotation"),
    ],
)
def test_a_bad_line_is_named(written, line, complaint):
    path = written(f"--batch_size 8\n{line}\n")
    with pytest.raises(UserError) as caught:
        parse(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: line 2: ")
    assert complaint in text
    assert "\n" not in text


@pytest.mark.parametrize("text", ["[]", "{", '{"batch_size": "four"}', '{"videos": 1}'])
def test_a_json_file_without_options_is_refused(tmp_path, text):
    (tmp_path / "opts.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=rf"^{tmp_path}/opts.json: [^\n]*$"):
        parse(tmp_path / "opts.json")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "/dev/null", "~nobody-here/x", "\udcff", "."])
def test_a_recipe_that_is_no_file_is_one_line(name, capsys):
    assert main.main([*PATHS, "--recipe", name]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert len(line) < 300


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root)
    return root


def test_the_options_of_a_run_repeat_it(data, tmp_path, capsys):
    recipe = tmp_path / "own.txt"
    recipe.write_text("--momentum 0.5\n--n_epochs 1\n", encoding="utf-8")
    first = tmp_path / "first"
    assert small_run(data, "--recipe", str(recipe), "--n_val_samples", "2", result=str(first)) == 0
    assert f"recipe {recipe}: --momentum 0.5\n" in capsys.readouterr().out
    saved = json.loads((first / "opts.json").read_text(encoding="utf-8"))
    assert (saved["recipe"], saved["momentum"], saved["n_epochs"]) == (str(recipe), 0.5, 2)

    paths = small_flags(data, result=str(tmp_path / "second"))[:8]
    assert main.main([*paths, "--recipe", str(first / "opts.json")]) == 0
    again = json.loads((tmp_path / "second" / "opts.json").read_text(encoding="utf-8"))
    assert {name for name in saved if saved[name] != again[name]} == {"recipe", "result_path"}
    for log in ("train.log", "val.log"):
        assert (first / log).read_bytes() == (tmp_path / "second" / log).read_bytes()


def options_of_json(tmp_path, **saved):
    path = tmp_path / "opts.json"
    path.write_text(json.dumps(saved), encoding="utf-8")
    return parse(path)


def test_how_a_run_was_launched_is_not_repeated(tmp_path):
    launch = {"distributed": True, "world_size": 2, "dist_url": "tcp://far:1"}
    assert options_of_json(tmp_path, **launch, batch_size=8).distributed is False
    assert options_of_json(tmp_path, **launch, batch_size=8).from_recipe == {"batch_size"}


def test_flags_that_were_given_are_repeated_and_what_follows_from_them_is_not(tmp_path):
    """A default that was given wins over a checkpoint; a frame rate that was measured would go on
    for other videos."""
    saved = {"mean_dataset": "kinetics", "eval_resize": [0], "frame_rate": 25.0, "n_classes": 4}
    assert options_of_json(tmp_path, **saved, model_depth=50).from_recipe == {"model_depth"}
    given = ["mean_dataset", "frame_rate"]
    assert options_of_json(tmp_path, **saved, given=given).from_recipe == set(given)
    with pytest.raises(UserError, match=r"opts\.json: given: "):
        options_of_json(tmp_path, batch_size=8, given=[1])


@pytest.mark.parametrize("name", recipe_names())
def test_the_recipes_run(data, tmp_path, name, capsys):
    weights = []
    if name in ("head", "finetune"):
        assert small_run(data, "--n_epochs", "1", "--no_val", result=str(tmp_path / "a")) == 0
        weights = ["--pretrain_path", str(tmp_path / "a/save_1.pth")]
    flags = [*weights, "--n_epochs", "5", "--inference"]
    assert small_run(data, "--recipe", name, *flags, result=str(tmp_path / "b")) == 0
    assert f"recipe {name}: --" in capsys.readouterr().out
    if name == "head":
        flags += ["--cache_features", "2"]
        assert small_run(data, "--recipe", name, *flags, result=str(tmp_path / "c")) == 0


def test_a_checkpoint_does_not_override_a_recipe(data, tmp_path, capsys):
    assert small_run(data, "--n_epochs", "1", result=str(tmp_path / "a")) == 0
    recipe = tmp_path / "own.txt"
    recipe.write_text("--mean_dataset 0.5\n", encoding="utf-8")
    flags = ("--pretrain_path", str(tmp_path / "a/save_1.pth"), "--n_epochs", "1")
    assert small_run(data, *flags, "--recipe", str(recipe), result=str(tmp_path / "b")) == 0
    saved = json.loads((tmp_path / "b" / "opts.json").read_text(encoding="utf-8"))
    assert saved["mean_dataset"] == "0.5"
    assert "--mean_dataset 0.5: " in capsys.readouterr().out


def test_advice_takes_recipes_into_account(written):
    options = parse(written("--inference_clips 10\n--inference_flip\n"))
    assert "--inference_clips 10 --inference_flip" in inference_command(options)
    assert from_scratch(parse("original"), n_videos=100) is not None
    assert from_scratch(parse("original", "--learning_rate", "0.1"), n_videos=100) is None
    assert from_scratch(parse("scratch_small"), n_videos=100) is None
