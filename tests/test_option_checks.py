"""Values out of range, and flags that contradict each other."""

import pytest

from errors import UserError
from parsing import fill_in, parse_opts
from tests.runs import make_dataset, small_run

PATHS = ["--video_path", "jpg", "--annotation_path", "index.json", "--result_path", "res"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root)
    return root


def test_all_problems_are_reported_together():
    with pytest.raises(UserError) as caught:
        parse_opts(["--batch_size", "0", "--model", "densenet", "--learning_rate", "nan"])
    message = str(caught.value)
    for expected in (
        "--video_path is missing", "--batch_size 0", "--model_depth 18: densenet has depths 121",
        "--learning_rate nan",
    ):  # fmt: skip
        assert expected in message


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (
            "--model resnet --ft_begin_module layer5 --pretrain_path p",
            "the modules of resnet are conv1 bn1",
        ),
        ("--ft_begin_module fc", "would stay random"),
        ("--freeze_bn", "^--freeze_bn needs --pretrain_path or a checkpoint to resume"),
        ("--recipe finetune", r"^--freeze_bn \(of --recipe finetune\) needs --pretrain_path"),
        ("--no_train --no_val", "nothing to do"),
        ("--no_train", "needs --resume_path"),
        ("--lr_scheduler plateau --no_val", "plateau needs the validation loss"),
        ("--model wideresnet --model_depth 50 --resnet_widen_factor 2", "no such option"),
        ("--model vgg", "invalid choice"),
        ("--train_crop_min_scale 1.5", "at most 1"),
        ("--n_epochs many", "invalid int value"),
        ("--batchnorm_sync --no_cuda", "cannot be combined with --no_cuda: it needs GPUs"),
        ("--world_size 2", "needs --distributed"),
        ("--cache_features 2", "--ft_begin_module fc --freeze_bn"),
        ("--accumulate 0", "from 1 to a million"),
        ("--cache_features 2 --distributed", "cannot be combined with --distributed"),
        ("--nesterov --momentum 0", "needs a --momentum above 0"),
        ("--input_type flow", "needs --file_type hdf5, not jpg"),
        ("--dataset activitynet --file_type video", "needs --file_type jpg, not video"),
        ("--scaled_decode --accimage", "cannot be combined with --accimage"),
        ("--scaled_decode --file_type video", "cannot be combined with --file_type video"),
        ("--input_type flow --file_type hdf5 --colorjitter", "flow has no colours"),
        ("--rand_augment 2", "--rand_augment 2: needs two numbers"),
        ("--rand_augment 2 9 5", "--rand_augment 2 9 5: needs two numbers"),
        ("--rand_augment 2 31", "the magnitude must be from 0 to 30"),
        ("--input_type flow --file_type hdf5 --rand_augment 2 9", "not its vectors"),
        ("--cutmix 1 --cache_features 2", "cannot be combined with --cache_features"),
        ("--random_erasing 1.5", "must be from 0 to 1"),
        ("--resnet_widen_factor 0.01", "must be from 0.015625 to 64"),
        ("--mixup -1", "--mixup -1"),
        ("--dropout 1", "from 0 to less than 1"),
        ("--keep_head", "needs --pretrain_path"),
        ("--no_such_flag", "unrecognized"),
    ],
)
def test_contradictions(flags, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_opts([*PATHS, *flags.split()])


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--ft_begin_module fc", "would stay random"),
        ("--recipe finetune", "batch norm would keep its initial statistics"),
        ("--keep_head", "needs --pretrain_path"),
        ("--model_depth 19", "resnet has depths"),
    ],
)
def test_a_fresh_start_of_resume_path_auto_is_one_without_a_checkpoint(
    data, tmp_path, capsys, flags, complaint
):
    flags = ("--resume_path", "auto", *flags.split())
    assert small_run(data, *flags, result=str(tmp_path / "res")) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert complaint in error
    assert not any((tmp_path / "res").iterdir())


def test_options_that_a_checkpoint_of_another_family_contradicts():
    options = parse_opts([*PATHS, "--resume_path", "a.pth", "--resnet_widen_factor", "2"])
    with pytest.raises(UserError, match="densenet has no such option"):
        fill_in(options, {"model": "densenet", "model_depth": 121})


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--eval_resize 128 171 200", "--eval_resize 128 171 200: needs the shorter side, or"),
        ("--eval_resize 0 171", "--eval_resize 0 171: needs the shorter side, or height and width"),
        (
            "--sample_size 224 --eval_resize 128 171",
            "--sample_size 224 is larger than --eval_resize 128 171; .* --eval_resize 224 300",
        ),
        ("--eval_resize 100", "--sample_size 112 is larger than --eval_resize 100; .* 112$"),
    ],
)
def test_frames_are_resized_to_at_least_the_crop(words, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_opts([*PATHS, *words.split()])
    assert parse_opts([*PATHS, "--eval_resize", "112"]).eval_resize == (112,)
