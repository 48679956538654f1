"""Nothing in the package runs or unpickles what a file says, and the rule that finds it finds it."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.faults.forbidden import ALLOWED, violations

PLANTED = {
    "import pickle": "import of pickle",
    "from pickle import loads": "import of pickle",
    "import yaml.loader": "import of yaml",
    "import marshal as m": "import of marshal",
    "eval(text)": "eval",
    "exec(text)": "exec",
    "run = eval": "eval",
    "import builtins\nbuiltins.eval(text)": "builtins.eval",
    "import torch\ntorch.load(path, weights_only=True)": "torch.load",
    "import torch as t\nt.load(path)": "torch.load",
    "from torch import load": "torch.load",
    "from torch import load as read\nread(path)": "torch.load",
    "import numpy as np\nnp.load(path)": "numpy.load without",
    "import numpy as np\nnp.load(path, allow_pickle=True)": "numpy.load without",
    "import numpy as np\nnp.load(path, allow_pickle=flag)": "numpy.load without",
    "np.lib.format.read_array(file, allow_pickle=flag)": "allow_pickle that is not False",
    "from numpy import load\nload(path)": "numpy.load",
    "import numpy as np\nread = np.load": "numpy.load",
    "import keras\nkeras.models.load_model(path)": "load_model",
    "from keras.saving import load_model": "load_model",
    "from keras.src.saving.saving_api import load_model": "import of load_model",
    "from converter.graphs.x.framework import tf\ntf.saved_model.load(path)": "tensorflow.saved_model.load",
    "from converter.graphs.x.framework import torch\ntorch.export.load(path)": "torch.export.load",
    "import tensorflow as tf\nloader = tf.saved_model.load": "tensorflow.saved_model.load",
    "import tensorflow as tf\nsaved_model = tf.saved_model\nsaved_model.load(path)": ".saved_model.load",
    "from tensorflow import saved_model": "import of saved_model",
    "from tensorflow.python.saved_model import loader": "import of loader",
    "tf.compat.v1.saved_model.loader.load(session, tags, path)": "tensorflow.compat.v1.saved_model.loader.load",
    "tf.compat.v1.train.import_meta_graph(path)": ".import_meta_graph",
    "keras.layers.TFSMLayer(path)": ".TFSMLayer",
    "keras.utils.get_file(origin=url)": "keras.utils.get_file",
    "anything.get_file(origin=url)": ".get_file",
    "from keras.utils import get_file": "keras.utils.get_file",
    "tf.load_op_library(path)": "tensorflow.load_op_library",
    "anything.load_model(path)": ".load_model",
    "import tensorflow as tf\ntf.saved_model.load(path)": "tensorflow.saved_model.load",
    "import tensorflow\ntensorflow.saved_model.load(path)": "tensorflow.saved_model.load",
    "AutoModel.from_pretrained(path, trust_remote_code=True)": "trust_remote_code",
    "read(path, weights_only=False)": "weights_only=False",
    "getattr(torch, 'load')(path)": "getattr of 'load'",
}


def test_the_package_keeps_the_rule() -> None:
    files = sorted((ROOT / "converter").rglob("*.py"))
    assert len(files) > 50
    broken = [line for path in files for line in violations(path.read_text(), str(path.relative_to(ROOT)))]
    assert broken == []


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found(planted: str) -> None:
    harmless = "import json\nimport numpy as np\n\n\ndef read(path):\n    return np.load(path, allow_pickle=False)\n"
    assert list(violations(harmless, "converter/x.py")) == []
    (first, *_) = violations(f"{harmless}\n{planted}\n", "converter/x.py")
    assert PLANTED[planted] in first
    assert first.startswith("converter/x.py:")


def test_every_exception_is_needed_and_for_one_file() -> None:
    for name, what in ALLOWED:
        text = (ROOT / name).read_text()
        assert list(violations(text, name)) == []
        assert [line.endswith(what) for line in violations(text, "elsewhere.py")] == [True]
