"""Stage `sample`: draw the sample data set into data/sample."""

from pathlib import Path

from pipeline.datasets.sample.drawing import write_sample
from pipeline.params import load_params
from pipeline.stages.run import run_stage

ROOT = Path("data/sample")


def main() -> None:
    """Draw the numbers of scenes that params.yaml sets."""
    params = load_params().sample
    write_sample(ROOT, train=params.train, dev=params.dev, test=params.test, seed=params.seed)
    print(
        f"sample: drew {params.train} train, {params.dev} dev and {params.test} test scenes"
        f" into {ROOT}"
    )


if __name__ == "__main__":
    run_stage(main)
