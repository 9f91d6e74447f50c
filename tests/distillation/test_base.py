"""What all models that distil have in common: the batches they take, their weights, parts of a subclass, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_models import (
    CLASSES,
    FURTHER,
    LABEL_LOSS,
    TABULAR,
    X,
    Y,
    compiled,
    evaluate,
    kernel,
    label_loss,
    linear,
)

from keras_tkd import Distiller, TeacherEnsemble, TriKD, losses
from keras_tkd.losses import LogitRegression, SoftTargets, TripletDistillation


class TestBatches:
    def distiller(self, *own, inputs="dict"):
        return compiled(Distiller(linear("teacher", 1, inputs), linear("student", 2, inputs), *own))

    @pytest.mark.parametrize("inputs", ["dict", "list"])
    def test_a_model_whose_inputs_are_a_dict_with_an_image_gets_them_all(self, inputs):
        """The teacher too: both add what they see."""
        distiller = self.distiller(LogitRegression(), inputs=inputs)
        teacher, student = kernel(distiller.teacher), kernel(distiller.student)
        x = {"image": X, "tabular": TABULAR}
        squares = ((X + TABULAR) @ (teacher - student)) ** 2
        assert evaluate(distiller, x)["logits"] == pytest.approx(squares.mean(), rel=1e-4)
        logits = distiller.predict(x, verbose=0)
        np.testing.assert_allclose(logits, (X + TABULAR) @ student, rtol=1e-4, atol=1e-5)
        history = distiller.fit(x, Y, batch_size=12, verbose=0).history
        assert history["logits"][0] == pytest.approx(squares.mean(), rel=1e-4)
        assert not np.array_equal(kernel(distiller.student), student)

    def test_such_a_model_takes_extra_images_as_dicts_of_inputs(self):
        distiller = self.distiller(TripletDistillation(margin=2.0))
        teacher, student = kernel(distiller.teacher), kernel(distiller.student)
        negative = {"image": FURTHER, "tabular": X}
        batch = {"image": {"image": X, "tabular": TABULAR}, "negative": negative}
        anchor = (X + TABULAR) @ teacher
        near, far = (np.linalg.norm(anchor - z @ student, axis=1) for z in (X + TABULAR, FURTHER + X))
        result = evaluate(distiller, batch)
        assert result["tkd"] == pytest.approx(np.maximum(near - far + 2, 0).mean(), rel=1e-4)
        assert result["tkd_negative_distance"] == pytest.approx(far.mean(), rel=1e-4)
        logits = distiller.predict(batch, verbose=0)
        np.testing.assert_allclose(logits, (X + TABULAR) @ student, rtol=1e-4, atol=1e-5)

    def test_such_a_model_is_built_by_its_shapes_and_loaded(self, tmp_path):
        distiller = self.distiller(LogitRegression())
        x = {"image": X, "tabular": TABULAR}
        expected = evaluate(distiller, x)["logits"]
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.saving.load_model(tmp_path / "distiller.keras")
        assert evaluate(loaded, x)["logits"] == pytest.approx(expected, rel=1e-6)
        late = Distiller(None, linear("student", 2, "dict"), LogitRegression())
        shapes = {"image": (None, 5), "tabular": (None, 5)}
        late.build({"image": shapes, "teacher": {"logits": (None, CLASSES)}})
        assert late.built

    @pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "build"])
    @pytest.mark.parametrize("online", [False, True])
    def test_a_misspelt_key_is_refused(self, method, online):
        """It would turn triplets that were drawn into triplets of the batch."""
        models = linear("teacher", 1), linear("student", 2)
        model = compiled(TriKD(*models) if online else Distiller(*models, TripletDistillation()))
        data = {"fit": (X, Y), "evaluate": (X, Y), "predict": (X,), "build": ((None, 5),)}[method]
        x, *rest = data
        arguments = {} if method == "build" else {"verbose": 0}
        with pytest.raises(ValueError, match="Received: .'negatives'.. Did you mean 'negative'"):
            getattr(model, method)({"image": x, "negatives": x}, *rest, **arguments)

    def test_outputs_of_a_teacher_are_a_dict(self):
        built = self.distiller(LogitRegression(), inputs=1)
        late = compiled(Distiller(None, keras.Sequential([keras.layers.Dense(CLASSES)]), LogitRegression()))
        for model in (built, late):
            with pytest.raises(ValueError, match=r'"teacher" must be a dict .*Received: .*3\). Name it: {"logits": '):
                evaluate(model, {"image": X, "teacher": X[:, :CLASSES]})

    def test_further_inputs_are_refused_where_the_model_does_not_take_them(self):
        with pytest.raises(ValueError, match="Received: .'tabular'.. The inputs of a model that takes a dict go"):
            evaluate(self.distiller(LogitRegression(), inputs=1), {"image": X, "tabular": TABULAR})


class TestWeights:
    @pytest.mark.parametrize("make", [lambda *m: Distiller(*m, SoftTargets()), TriKD], ids=["Distiller", "TriKD"])
    def test_are_replaced_as_a_whole(self, make):
        model = make(linear("teacher", 1), linear("student", 2))
        assert model.distillation_loss_weights == (1.0,)
        with pytest.raises(TypeError, match="item assignment"):
            model.distillation_loss_weights[0] = 0.5
        for weights in (0.5, [0.5], (0.5,), np.array([0.5]), np.array(0.5), np.float32(0.5), tf.constant(0.5)):
            model.distillation_loss_weights = None
            assert model.distillation_loss_weights == (1.0,)
            model.distillation_loss_weights = weights
            assert model.distillation_loss_weights == (0.5,)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
        assert again.distillation_loss_weights == (0.5,)

    @pytest.mark.parametrize("weights", ["0.5", True, np.array(-1.0), [None]], ids=repr)
    def test_are_numbers(self, weights):
        model = TriKD(linear("teacher", 1), linear("student", 2))
        with pytest.raises(ValueError, match="`distillation_loss_weights` must be a number >= 0. Received"):
            model.distillation_loss_weights = weights

    def test_a_sequence_of_one_is_a_number_to_trikd(self):
        models = linear("teacher", 1), linear("student", 2)
        assert TriKD(*models, distillation_loss_weights=[0.25]).distillation_loss_weights == (0.25,)
        with pytest.raises(ValueError, match="one weight for each of the 1"):
            TriKD(*models, distillation_loss_weights=[0.25, 0.75])


class WithParts:
    """A subclass's own constructor, which goes on after that of the model, and a head that is trained with it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mean = keras.metrics.Mean(name="mean")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        decay = keras.regularizers.L2(0.5)
        self.head = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", kernel_regularizer=decay)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        value = self.scale * keras.ops.mean(self.head(y_pred))
        self.mean.update_state(value)
        return value


class Building:
    """The head has its weights before the first step, as a model that is loaded needs it."""

    def build(self, input_shape):
        super().build(input_shape)
        self.head.build((None, CLASSES))


@keras.saving.register_keras_serializable(package="keras_tkd_tests")
class DistillerWithParts(Building, WithParts, Distiller):
    pass


@keras.saving.register_keras_serializable(package="keras_tkd_tests")
class TriKDWithParts(Building, WithParts, TriKD):
    pass


@keras.saving.register_keras_serializable(package="keras_tkd_tests")
class DistillerWithLatePart(WithParts, Distiller):
    pass


@keras.saving.register_keras_serializable(package="keras_tkd_tests")
class WithoutBuild(keras.layers.Layer):
    """A layer whose weights its first call makes."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(1, use_bias=False)

    def call(self, inputs):
        return self.inner(inputs)


@keras.saving.register_keras_serializable(package="keras_tkd_tests")
class DistillerWithHead(Distiller):
    """Its head is built by the step or, as the test sets it, called on an input by the constructor."""

    called = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.head = WithoutBuild()
        if self.called:
            self.head(keras.Input((CLASSES,)))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(self.head(y_pred))


@keras.saving.register_keras_serializable(package="keras_tkd_tests")
class DistillerWithLatePool(WithParts, Distiller):
    """It makes a layer without weights when it first needs it."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if not hasattr(self, "pool"):
            self.pool = keras.layers.GlobalAveragePooling1D()
        return super().compute_loss(x, y, self.pool(y_pred[:, None]), sample_weight, training)


@keras.saving.register_keras_serializable(package="keras_tkd_tests")
class DistillerFromItsOwn(DistillerWithParts):
    @classmethod
    def from_config(cls, config, custom_objects=None):
        names = ("teacher", "student", "distillation_losses")
        return cls(**config | {name: keras.saving.deserialize_keras_object(config[name]) for name in names})


class TestPartsOfASubclass:
    """Metrics, weights and layers that its constructor sets, after the model's: all of them train and are saved."""

    MAKE = {
        "Distiller": lambda *m: DistillerWithParts(*m, SoftTargets(), 0.0),
        "TriKD": lambda *m: TriKDWithParts(*m, distillation_loss_weights=0.0),
        "built by the step": lambda *m: DistillerWithLatePart(*m, SoftTargets(), 0.0),
        "a layer without weights, made by the step": lambda *m: DistillerWithLatePool(*m, SoftTargets(), 0.0),
        "from_config of its own": lambda *m: DistillerFromItsOwn(*m, SoftTargets(), 0.0),
    }

    @pytest.mark.parametrize("kind", MAKE)
    def test_are_trained_and_tracked(self, kind):
        model = self.MAKE[kind](linear("teacher", 1), linear("student", 2))
        model.compile(keras.optimizers.SGD(0.1, momentum=0.5), LABEL_LOSS)
        z = X @ kernel(model.student)
        history = model.fit(X, Y, batch_size=12, verbose=0).history
        # The head sums the logits: scale * sum(z) has the derivative sum(z) by scale, and z by each of its weights.
        value = z.sum(-1).mean()
        for name in ("student_loss", "mean"):
            assert history[name][0] == pytest.approx(value, rel=1e-5), name
        # 0.5 * (1 + 1 + 1), which adds 1 to the derivative by each weight.
        assert history["regularization"][0] == pytest.approx(1.5, rel=1e-6)
        assert float(model.scale.numpy()) == pytest.approx(1 - 0.1 * value, rel=1e-5)
        np.testing.assert_allclose(model.head.get_weights()[0][:, 0], 1 - 0.1 * (z.mean(0) + 1), rtol=1e-5)

    @pytest.mark.parametrize("kind", MAKE)
    def test_are_saved_and_loaded(self, kind, tmp_path):
        model = self.MAKE[kind](linear("teacher", 1), linear("student", 2))
        model.compile(keras.optimizers.SGD(0.1, momentum=0.5), LABEL_LOSS)
        model.fit(X, Y, batch_size=4, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert float(loaded.scale.numpy()) == float(model.scale.numpy()) != 1.0
        np.testing.assert_array_equal(loaded.head.get_weights()[0], model.head.get_weights()[0])
        pairs = zip(model.optimizer.variables, loaded.optimizer.variables, strict=True)
        for mine, theirs in pairs:
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
        histories = [each.fit(X, Y, batch_size=12, verbose=0).history for each in (model, loaded)]
        for name, values in histories[0].items():
            np.testing.assert_allclose(values, histories[1][name], rtol=1e-5, err_msg=name)

    def test_one_that_cannot_be_built_again_is_refused_and_not_lost(self, tmp_path, monkeypatch):
        message = "must have a `build`.*WithoutBuild 'without_build.*0 weights after `build`, 1 in the file"
        model = DistillerWithHead(linear("teacher", 1), linear("student", 2), SoftTargets(), 0.0)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.5), LABEL_LOSS)
        model.fit(X, Y, batch_size=4, verbose=0)
        model.save(tmp_path / "model.keras")
        for with_optimizer in (True, False):
            with pytest.raises(ValueError, match=f"{message}.*call it there on a `keras.Input`"):
                keras.saving.load_model(tmp_path / "model.keras", compile=with_optimizer)
        # As the message says.
        monkeypatch.setattr(DistillerWithHead, "called", True)
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        for mine, theirs in zip(model.head.get_weights(), loaded.head.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)

    @pytest.mark.parametrize("make", [lambda *m: Distiller(*m, SoftTargets()), TriKD])
    def test_of_what_is_no_subclass_none_are_expected(self, make, tmp_path):
        """What is set on it, no step reads: it is saved as Keras saves it, and loaded without."""
        model = make(linear("teacher", 1), linear("student", 2))
        model.reference = linear("reference", 3)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(kernel(loaded.student), kernel(model.student))

    def test_do_not_take_the_early_errors_away(self):
        wide = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES + 1)])
        with pytest.raises(ValueError, match="compares one output"):
            DistillerWithParts(wide, linear("student", 2), LogitRegression())

    def test_layers_of_a_loss_are_saved_beside_them(self, tmp_path):
        hint = losses.Hint(teacher_layers="logits", student_layers="logits")
        model = DistillerWithParts(linear("teacher", 1), linear("student", 2), hint)
        model.compile(keras.optimizers.SGD(0.1), LABEL_LOSS)
        model.fit(X, Y, batch_size=12, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        (mine,), (theirs,) = model.loss_layers, loaded.loss_layers
        assert len(mine.get_weights()) > 0
        for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


class TestAddLoss:
    def test_of_the_student_counts(self):
        class Adding(keras.layers.Layer):
            def call(self, x):
                self.add_loss(0.5 * keras.ops.mean(x))
                return x

        student = keras.Sequential([*linear("student", 2).layers, Adding()])
        student.build((None, 5))
        model = compiled(Distiller(linear("teacher", 1), student, SoftTargets()))
        value = 0.5 * (X @ kernel(student)).mean()
        assert evaluate(model, X)["regularization"] == pytest.approx(value, rel=1e-4)

    @pytest.mark.parametrize("base", [Distiller, TriKD])
    def test_of_the_model_around_it_is_refused(self, base):
        class Adding(base):
            def call(self, inputs, training=None):
                outputs = super().call(inputs, training)
                self.add_loss(keras.ops.mean(outputs))
                return outputs

        own = [SoftTargets()] if base is Distiller else []
        model = Adding(linear("teacher", 1), linear("student", 2), *own)
        with pytest.raises(NotImplementedError, match="runs the student.*Received: Adding.add_loss.*Add the loss in"):
            model(X)


class TestFromTheExampleOfKerasIo:
    """Its class `Distiller` takes its losses in `compile`."""

    @pytest.mark.parametrize(
        ("given", "meaning"),
        [
            ({"student_loss_fn": LABEL_LOSS}, "student_loss_fn is `loss` of `compile`"),
            ({"distillation_loss_fn": keras.losses.KLDivergence()}, "distillation_loss_fn is `distillation_losses`"),
            ({"alpha": 0.1}, r"alpha is `student_loss_weight=alpha, distillation_loss_weights=\[1 - alpha\]`"),
            ({"temperature": 10}, "temperature is that of SoftTargets"),
        ],
    )
    def test_its_arguments_are_mapped(self, given, meaning):
        distiller = Distiller(linear("teacher", 1), linear("student", 2), SoftTargets())
        with pytest.raises(TypeError, match=f"{meaning}.*docs/from_keras_distillation.md"):
            distiller.compile("adam", **given)
        with pytest.raises(TypeError, match="needs `distillation_losses`.*docs/from_keras_distillation.md"):
            Distiller(student=linear("student", 2), teacher=linear("teacher", 1))

    def test_the_total_is_that_of_the_example(self):
        """alpha * crossentropy + (1 - alpha) * T^2 * KL(softmax(z_t / T) || softmax(z_s / T)), alpha 0.1, T 10."""
        teacher, student = linear("teacher", 1), linear("student", 2)
        z_t, z_s = X @ kernel(teacher), X @ kernel(student)

        def soften(z):
            e = np.exp(z / 10)
            return e / e.sum(-1, keepdims=True)

        divergence = (soften(z_t) * np.log(soften(z_t) / soften(z_s))).sum(-1)
        expected = np.mean(0.1 * label_loss(z_s) + 0.9 * 100 * divergence)
        distiller = compiled(Distiller(teacher, student, SoftTargets(temperature=10.0), [0.9], student_loss_weight=0.1))
        assert evaluate(distiller, X)["loss"] == pytest.approx(expected, rel=1e-4)


class TestTwoKinds:
    """A Distiller freezes its teacher, TriKD its anchor, and neither is the other."""

    def test_what_is_frozen(self):
        distiller = Distiller(linear("teacher", 1), linear("student", 2), SoftTargets())
        trikd = TriKD(linear("teacher", 1), linear("student", 2), linear("anchor", 3))
        assert not distiller.teacher.trainable and distiller.student.trainable
        assert not trikd.anchor.trainable and trikd.teacher.trainable and trikd.student.trainable
        assert trikd.online

    def test_trikd_is_no_distiller_with_another_constructor(self):
        trikd = TriKD(linear("teacher", 1), linear("student", 2))
        assert not isinstance(trikd, Distiller) and not hasattr(trikd, "freeze_teacher")
        # The nearest of what both derive from.
        common = next(kind for kind in TriKD.__mro__[1:] if kind in Distiller.__mro__[1:])
        assert common is not keras.Model
        assert common.train_step is TriKD.train_step is Distiller.train_step


class TestFixed:
    """What a step was made of: another would be saved, and would neither learn nor teach."""

    @pytest.mark.parametrize("name", ["teacher", "student"])
    @pytest.mark.parametrize("make", [lambda *m: Distiller(*m, SoftTargets()), TriKD])
    def test_a_model_cannot_be_replaced(self, make, name):
        model = make(linear("teacher", 1), linear("student", 2))
        before = getattr(model, name)
        with pytest.raises(AttributeError, match=f"`{name}` of a {type(model).__name__} cannot be set.*Make a new"):
            setattr(model, name, linear("other", 3))
        assert getattr(model, name) is before
        # It is what `model.student = model.student` says that changes nothing.
        setattr(model, name, before)

    def test_nor_one_that_there_is_not(self):
        with pytest.raises(AttributeError, match="`teacher` of a Distiller"):
            Distiller(None, linear("student", 2), SoftTargets()).teacher = linear("teacher", 1)
        with pytest.raises(AttributeError, match="`anchor` of a TriKD"):
            TriKD(linear("teacher", 1), linear("student", 2)).anchor = linear("anchor", 3)

    def test_the_teachers_of_an_ensemble_stay(self):
        ensemble = TeacherEnsemble([linear("a", 1), linear("b", 2)], average="logits")
        with pytest.raises(TypeError, match="item assignment"):
            ensemble.teachers[0] = linear("c", 3)
        with pytest.raises(AttributeError, match="`teachers` of a TeacherEnsemble cannot be set"):
            ensemble.teachers = [linear("c", 3), linear("d", 4)]
        assert [teacher.name for teacher in ensemble.teachers] == ["a", "b"] and len(ensemble.weights) == 2


class TestLosses:
    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (lambda *m: Distiller(*m, SoftTargets()), "distillation_losses"),
            (TriKD, "distillation_losses"),
            (TriKD, "student_term_reaches_teacher"),
        ],
    )
    def test_what_a_step_was_made_of_cannot_be_replaced(self, make, name):
        model = make(linear("teacher", 1), linear("student", 2))
        with pytest.raises(AttributeError, match=f"'{name}'.* no setter"):
            setattr(model, name, (LogitRegression(),))

    @pytest.mark.parametrize("reduction", [None, "none"])
    def test_have_a_reduction(self, reduction):
        own = [LogitRegression(), SoftTargets(reduction=reduction)]
        with pytest.raises(ValueError, match=f"must have a reduction.*name='kd', reduction={reduction!r}. Take"):
            Distiller(linear("teacher", 1), linear("student", 2), own)

    def test_are_different_objects(self):
        hint = losses.Hint("logits", "logits")
        for own in ([hint, SoftTargets(), hint], [keras.distillation.LogitsDistillation(loss="mse")] * 2):
            with pytest.raises(ValueError, match="must be different objects. Received one of them twice: [HL].*Give"):
                Distiller(linear("teacher", 1), linear("student", 2), own)

    def test_are_the_very_objects_that_were_given(self):
        given = [SoftTargets(), losses.SimilarityPreserving()]
        distiller = Distiller(linear("teacher", 1), linear("student", 2), given)
        assert all(own is loss for own, loss in zip(distiller.distillation_losses, given, strict=True))
        alone = Distiller(linear("teacher", 1), linear("student", 2), given[0])
        assert alone.distillation_losses[0] is given[0]
