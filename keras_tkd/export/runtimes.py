"""The runtimes of exported files. Each opens a file and runs it: `runtime(images)` gives float32 outputs.

`images` are a NumPy array `(batch, height, width, channels)`, on the scale that the file takes. `operations` lists what
the file does, pairs of a name, in which its layer's stands, and a kind. `runtime.threads` is the number of threads that
it computes with; 0 is TensorFlow's own choice, which it makes once for a process.
"""

import os

import numpy as np
import tensorflow as tf

from keras_tkd.utils.native_output import hide_native_output

__all__ = ["LiteRT", "OnnxRuntime", "SavedModel", "count_tensorflow_threads"]


def count_tensorflow_threads():
    """Returns the number of threads that TensorFlow computes an operation with; 0 where the choice is its own."""
    # The setting wins over the variable, as in TensorFlow itself.
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    return chosen or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0))


class SavedModel:
    """A SavedModel in TensorFlow, without Keras.

    Args:
        path: the folder.
    """

    quantization = None

    def __init__(self, path):
        # The loaded object owns the variables: without it they are gone.
        self._loaded = tf.saved_model.load(str(path))
        self._signature = self._loaded.signatures["serving_default"]
        (self._input,) = self._signature.structured_input_signature[1]
        self.threads = count_tensorflow_threads()

    def __call__(self, images):
        (outputs,) = self._signature(**{self._input: tf.constant(images, tf.float32)}).values()
        return outputs.numpy()

    @property
    def operations(self):
        """Pairs of the name and the kind of each operation, in nested functions too."""
        graph = self._signature.graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        return [(node.name, node.op) for node in nodes]


class LiteRT:
    """A `.tflite` file in LiteRT, by one thread.

    Where the file takes int8, pixels are quantized by the numbers that it says; likewise its outputs.

    Args:
        path: the file.
    """

    threads = 1

    def __init__(self, path):
        from ai_edge_litert.interpreter import Interpreter

        self._path = path
        with hide_native_output():
            self._interpreter = Interpreter(str(path), num_threads=self.threads)
            self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self._shape = tuple(self._input["shape"])

    def __call__(self, images):
        if images.shape != self._shape:
            # Planning memory takes longer than a small model: only where the batch is of another size.
            self._interpreter.resize_tensor_input(self._input["index"], images.shape)
            with hide_native_output():
                self._interpreter.allocate_tensors()
            self._shape = images.shape
        self._interpreter.set_tensor(self._input["index"], _quantize(images, self._input))
        self._interpreter.invoke()
        return _dequantize(self._interpreter.get_tensor(self._output["index"]), self._output)

    @property
    def quantization(self):
        """Scale and zero point of integers, `value = scale * (stored - zero_point)`; None of a file of floats."""
        if np.dtype(self._input["dtype"]).kind == "f":
            return None
        return {"input": self._input["quantization"], "output": self._output["quantization"]}

    @property
    def operations(self):
        """Pairs of the name of what an operation makes, and its kind."""
        return [(name, kind) for name, kind, _ in self._read_operators()]

    @property
    def float_operations(self):
        """Likewise of those that compute in floats; not of those that only convert them."""
        computing = [(name, kind) for name, kind, in_floats in self._read_operators() if in_floats]
        return [(name, kind) for name, kind in computing if kind not in ("QUANTIZE", "DEQUANTIZE")]

    def _read_operators(self):
        """Lists the file's operators: the name of what each makes, its kind, and whether it takes or makes floats."""
        from ai_edge_litert import schema_py_generated as schema

        with open(self._path, "rb") as file:
            model = schema.Model.GetRootAs(file.read(), 0)
        names = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        listed = []
        for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
            for operator in map(graph.Operators, range(graph.OperatorsLength())):
                code = model.OperatorCodes(operator.OpcodeIndex())
                # Old readers find small numbers in the one field, and 127 there where the number is in the other.
                number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
                kind = names[number] if code.CustomCode() is None else code.CustomCode().decode()
                made = list(map(operator.Outputs, range(operator.OutputsLength())))
                taken = list(map(operator.Inputs, range(operator.InputsLength())))
                # -1 stands for an input that is left out.
                tensors = [graph.Tensors(index) for index in made + taken if index >= 0]
                in_floats = any(tensor.Type() == schema.TensorType.FLOAT32 for tensor in tensors)
                listed.append((tensors[0].Name().decode() if made else "", kind, in_floats))
        return listed


class OnnxRuntime:
    """An `.onnx` file in ONNX Runtime, on the processor, by one thread.

    Args:
        path: the file.
    """

    threads = 1
    quantization = None

    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = self.threads
        self._path = path
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (self._input,) = (tensor.name for tensor in self._session.get_inputs())

    def __call__(self, images):
        (outputs,) = self._session.run(None, {self._input: images.astype("float32", copy=False)})
        return outputs

    @property
    def operations(self):
        """Pairs of the name and the kind of each node."""
        import onnx

        return [(node.name, node.op_type) for node in onnx.load(self._path).graph.node]


def _quantize(values, details):
    """Returns values as a tensor stores them; floats as they are."""
    dtype = np.dtype(details["dtype"])
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    scale, zero_point = details["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantize(stored, details):
    """Returns the float32 values that a tensor stands for."""
    if stored.dtype.kind == "f":
        return stored.astype("float32", copy=False)
    scale, zero_point = details["quantization"]
    return np.float32(scale) * (stored.astype("float32") - zero_point)
