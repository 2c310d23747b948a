"""What a run remembers."""

from ddpmctl.training.history import EpochRow, to_csv


def test_the_history_is_a_row_an_epoch() -> None:
    rows = [
        EpochRow(
            epoch=1, step=10, train_mse=0.123456789, validation_mse=None, lr=2e-5, images_per_second=1234.5678,
            seconds=1.5, best=True,
        ),
        EpochRow(
            epoch=2, step=20, train_mse=0.1, validation_mse=0.25, lr=1e-4, images_per_second=2.0, seconds=3.0,
            best=False,
        ),
    ]  # fmt: skip
    assert to_csv(rows) == (
        "epoch,step,train_mse,validation_mse,lr,images_per_second,seconds,best\n"
        "1,10,0.123457,,2e-05,1234.57,1.5,True\n"
        "2,20,0.1,0.25,0.0001,2,3,False\n"
    )
