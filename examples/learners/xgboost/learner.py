"""An organisation's own model in assisted learning, with XGBoost, as docs/bring-your-own-learner.md describes.

The program is started for one task, in a folder that holds everything, and ends. Missing values are taken as they are; targets of
several columns get an ensemble each.
"""

import json
import os

import numpy as np
import xgboost

ROUNDS = 100


def parameters(task):
    return {"max_depth": 3, "eta": 0.1, "tree_method": "hist", "objective": "reg:squarederror", "seed": task["seed"] % 2**31, "nthread": 2}


def main():
    with open(os.environ["COHORT_TASK"]) as f:
        task = json.load(f)
    if task["version"] != 1:
        raise SystemExit(f"this learner knows version 1 of tasks, not {task['version']}")
    x = np.load(task["features"])
    if task["task"] == "fit":
        weight = np.load(task["weights"]) if "weights" in task else None
        data = xgboost.DMatrix(x, np.load(task["targets"]), weight=weight)
        model = xgboost.train(parameters(task), data, ROUNDS)
        with open(task["model"], "wb") as f:
            f.write(model.save_raw("ubj"))
    elif task["task"] == "predict":
        model = xgboost.Booster()
        with open(task["model"], "rb") as f:
            model.load_model(bytearray(f.read()))
        np.save(task["predictions"], model.predict(xgboost.DMatrix(x)))
    else:
        raise SystemExit(f"this learner fits and predicts; it cannot {task['task']!r}")


if __name__ == "__main__":
    main()
