"""The losses as the papers print them: float64, row by row, class by class.

Nothing here comes from the library, and nothing here is fast. Where the two differ, read the paper. The
losses take lists of rows (arrays will do) and return one number per row, as a float64 array.
"""

import math

import numpy as np


def log_softmax(row):
    top = max(row)
    log_sum = top + math.log(math.fsum(math.exp(z - top) for z in row))
    return [z - log_sum for z in row]


def standardized(row):
    """Z-score with the sample standard deviation (n - 1), plus the 1e-7 of the reference implementation."""
    mean = math.fsum(row) / len(row)
    variance = math.fsum((z - mean) ** 2 for z in row) / (len(row) - 1)
    return [(z - mean) / (math.sqrt(variance) + 1e-7) for z in row]


def soft_targets(teacher, student, temperature, standardize=False):
    """T^2 KL(p_t || p_s), p = softmax(z / T)."""
    values = []
    for teacher_row, student_row in zip(teacher, student, strict=True):
        if standardize:
            teacher_row, student_row = standardized(teacher_row), standardized(student_row)
        log_p_t = log_softmax([z / temperature for z in teacher_row])
        log_p_s = log_softmax([z / temperature for z in student_row])
        divergence = 0.0
        for a, b in zip(log_p_t, log_p_s, strict=True):
            divergence += math.exp(a) * (a - b)
        values.append(temperature**2 * divergence)
    return np.array(values, "float64")


def binary_soft_targets(teacher, student, temperature):
    """T^2 times the mean over the classes of KL((p, 1 - p) || (q, 1 - q)), p = 1 / (1 + exp(-z / T))."""
    values = []
    for teacher_row, student_row in zip(teacher, student, strict=True):
        # log p = -log(1 + exp(-x)), with the larger of both powers taken out; log(1 - p) is that of -x.
        divergences = []
        for a, b in zip(teacher_row, student_row, strict=True):
            log_p, log_q = (
                [-(max(-x, 0.0) + math.log1p(math.exp(-abs(x)))) for x in (z / temperature, -z / temperature)]
                for z in (a, b)
            )
            divergences.append(math.fsum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True)))
        values.append(temperature**2 * math.fsum(divergences) / len(divergences))
    return np.array(values, "float64")


def logit_regression(teacher, student):
    """Mean over the classes of (z_s - z_t)^2."""
    values = []
    for teacher_row, student_row in zip(teacher, student, strict=True):
        squares = [(b - a) ** 2 for a, b in zip(teacher_row, student_row, strict=True)]
        values.append(math.fsum(squares) / len(squares))
    return np.array(values, "float64")


def without(row, position):
    return [z for i, z in enumerate(row) if i != position]


def divergence(log_p, log_q):
    """KL(p || q), from logarithms."""
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))


def target_divergence(teacher, student, label, temperature):
    """TCKD of one row, without T^2: the target's probability against all others' together."""
    binary = []
    for row in (teacher, student):
        log_p = log_softmax([z / temperature for z in row])
        others = without(log_p, label)
        top = max(others)
        binary.append([log_p[label], top + math.log(math.fsum(math.exp(a - top) for a in others))])
    return divergence(*binary)


def others_divergence(teacher, student, label, temperature):
    """NCKD of one row, without T^2: the probabilities of the other classes, made to sum to one."""
    rows = [[z / temperature for z in without(row, label)] for row in (teacher, student)]
    return divergence(*map(log_softmax, rows))


def decoupled_targets(teacher, student, labels, temperature, alpha, beta):
    """T^2 (alpha TCKD + beta NCKD)."""
    values = []
    for t, s, label in zip(teacher, student, labels, strict=True):
        target = target_divergence(t, s, label, temperature)
        others = others_divergence(t, s, label, temperature)
        values.append(temperature**2 * (alpha * target + beta * others))
    return np.array(values, "float64")


def normalized_targets(teacher, student, labels, temperature, gamma):
    """-p_t[y] log p_s[y] - gamma T^2 sum over the others of N(p_t) log N(p_s); p[y] is that of T = 1."""
    values = []
    for t, s, label in zip(teacher, student, labels, strict=True):
        target = -math.exp(log_softmax(t)[label]) * log_softmax(s)[label]
        log_t, log_s = (log_softmax([z / temperature for z in without(row, label)]) for row in (t, s))
        others = -math.fsum(math.exp(a) * b for a, b in zip(log_t, log_s, strict=True))
        values.append(target + gamma * temperature**2 * others)
    return np.array(values, "float64")


def hard_targets(teacher, student):
    """log of the sum of all exp(s), less the s of the first class whose t is the largest."""
    values = []
    for t, s in zip(teacher, student, strict=True):
        named = list(t).index(max(t))
        values.append(math.fsum([max(s), math.log(math.fsum(math.exp(z - max(s)) for z in s)), -s[named]]))
    return np.array(values, "float64")


def mean(numbers):
    numbers = list(numbers)
    return math.fsum(numbers) / len(numbers)


def dot(u, v):
    return math.fsum(a * b for a, b in zip(u, v, strict=True))


def standardized_to_unit(numbers):
    """Less their mean, and of norm one; what is constant up to a norm of 1e-6 becomes zeros."""
    centre = mean(numbers)
    centred = [x - centre for x in numbers]
    norm = math.sqrt(dot(centred, centred))
    return [x / norm if norm > 1e-6 else 0.0 for x in centred]


def dist(teacher, student, temperature, inter_weight, intra_weight):
    """T^2 [inter (1 - Pearson of the row) + intra (1 - b / C times the row's part of the columns' Pearson)]."""
    p_t, p_s = (
        [[math.exp(a) for a in log_softmax([z / temperature for z in row])] for row in x] for x in (teacher, student)
    )
    columns = [[standardized_to_unit(column) for column in zip(*p, strict=True)] for p in (p_t, p_s)]
    batch, classes = len(p_t), len(columns[0])
    values = []
    for i in range(batch):
        inter = 1.0 - dot(standardized_to_unit(p_t[i]), standardized_to_unit(p_s[i]))
        shares = [columns[0][c][i] * columns[1][c][i] for c in range(classes)]
        intra = 1.0 - batch / classes * math.fsum(shares)
        values.append(temperature**2 * (inter_weight * inter + intra_weight * intra))
    return np.array(values, "float64")


def pairs_of(teacher, student):
    """The layers of both sides, pair by pair; one layer is a list of one."""
    if isinstance(teacher, list):
        return list(zip(teacher, student, strict=True))
    return [(teacher, student)]


def unit(row):
    """Divided by its L2 norm; zeros stay zeros."""
    norm = math.sqrt(dot(row, row))
    return [x / norm for x in row] if norm else list(row)


def similarity_preserving(teacher, student):
    """(1 / b) sum_j (G_t - G_s)_ij^2, G the rows of Q Q^T divided by their norms; summed over layers."""
    values = np.zeros(len(pairs_of(teacher, student)[0][0]))
    for layers in pairs_of(teacher, student):
        similarity = []
        for features in layers:
            flat = [sample.ravel().tolist() for sample in np.asarray(features, "float64")]
            similarity.append([unit([dot(u, v) for v in flat]) for u in flat])
        for i, (row_t, row_s) in enumerate(zip(*similarity, strict=True)):
            values[i] += mean((a - b) ** 2 for a, b in zip(row_t, row_s, strict=True))
    return values


def embeddings(features):
    """One vector per sample: maps are averaged over their positions."""
    features = np.asarray(features, "float64")
    if features.ndim == 2:
        return features.tolist()
    return [[mean(sample[..., c].ravel()) for c in range(features.shape[-1])] for sample in features]


def huber(x):
    return 0.5 * x**2 if abs(x) <= 1.0 else abs(x) - 0.5


def distance(u, v):
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(u, v, strict=True)))


def relational_distance(teacher, student):
    """Huber of the distances to all rows; each side's are divided by the mean of those that are positive."""
    relative = []
    for features in (teacher, student):
        rows = embeddings(features)
        distances = [[distance(u, v) for v in rows] for u in rows]
        positive = [d for row in distances for d in row if d > 0]
        scale = mean(positive) if positive else 1.0
        relative.append([[d / scale for d in row] for row in distances])
    return np.array([mean(huber(b - a) for a, b in zip(t, s, strict=True)) for t, s in zip(*relative, strict=True)])


def relational_angle(teacher, student):
    """Huber of the cosines of the angles at a row, between all pairs of rows seen from it."""
    cosines = []
    for features in (teacher, student):
        rows = embeddings(features)
        sights = [[unit([a - b for a, b in zip(other, corner, strict=True)]) for other in rows] for corner in rows]
        cosines.append([[dot(u, v) for u in sight for v in sight] for sight in sights])
    return np.array([mean(huber(b - a) for a, b in zip(t, s, strict=True)) for t, s in zip(*cosines, strict=True)])


def probabilistic_transfer(teacher, student):
    """Mean over j of P_t log((P_t + 1e-7) / (P_s + 1e-7)), P the cosines moved to [0, 1], rows that sum to one."""
    chances = []
    for features in (teacher, student):
        rows = [unit(row) for row in embeddings(features)]
        kernel = [[(dot(u, v) + 1.0) / 2.0 for v in rows] for u in rows]
        chances.append([[k / math.fsum(row) for k in row] for row in kernel])
    return np.array(
        [
            mean(a * math.log((a + 1e-7) / (b + 1e-7)) for a, b in zip(t, s, strict=True))
            for t, s in zip(*chances, strict=True)
        ]
    )


def correlation_congruence(teacher, student, gamma, order):
    """Mean over j of (K_s - K_t)_ij^2, K the Taylor polynomial of the Gaussian kernel of unit rows."""
    kernels = []
    for features in (teacher, student):
        rows = [unit(row) for row in embeddings(features)]
        kernels.append(
            [
                [
                    math.exp(-2 * gamma)
                    * math.fsum((2 * gamma * dot(u, v)) ** p / math.factorial(p) for p in range(order + 1))
                    for v in rows
                ]
                for u in rows
            ]
        )
    return np.array([mean((b - a) ** 2 for a, b in zip(t, s, strict=True)) for t, s in zip(*kernels, strict=True)])


def pooled(features, height, width):
    """Averages over cells of `(b, h, w, c)`: cell i of m covers positions floor(i n / m) to ceil((i + 1) n / m)."""
    batch, rows, columns, channels = features.shape
    result = np.zeros((batch, height, width, channels))
    for b, i, j, c in np.ndindex(result.shape):
        cell = features[
            b,
            i * rows // height : -(-(i + 1) * rows // height),
            j * columns // width : -(-(j + 1) * columns // width),
            c,
        ]
        result[b, i, j, c] = mean(cell.ravel())
    return result


def of_one_size(teacher, student):
    """Maps of different size: the larger is pooled to the smaller; of tokens, a class token of one side is left out."""
    teacher, student = np.asarray(teacher, "float64"), np.asarray(student, "float64")
    if teacher.ndim == 3:
        patches = min(teacher.shape[1], student.shape[1])
        return teacher[:, -patches:], student[:, -patches:]
    if teacher.ndim == 2 or teacher.shape[1:3] == student.shape[1:3]:
        return teacher, student
    size = min(teacher.shape[1:3], student.shape[1:3])
    return pooled(teacher, *size), pooled(student, *size)


def attention_transfer(teacher, student):
    """Sum over layers of the mean over positions of (a_s - a_t)^2, a the map of mean squares, of norm one."""
    values = np.zeros(len(pairs_of(teacher, student)[0][0]))
    for layers in pairs_of(teacher, student):
        maps = []
        for features in of_one_size(*layers):
            powers = [[mean(x**2 for x in at) for at in sample.reshape(-1, sample.shape[-1])] for sample in features]
            maps.append([unit(power) for power in powers])
        for i, (a_t, a_s) in enumerate(zip(*maps, strict=True)):
            values[i] += mean((b - a) ** 2 for a, b in zip(a_t, a_s, strict=True))
    return values


def linear(features, kernel):
    """Every position's channels times a matrix: a 1x1 convolution; for rank 2 a dense layer."""
    features = np.asarray(features, "float64")
    result = np.zeros((*features.shape[:-1], kernel.shape[1]))
    for at in np.ndindex(features.shape[:-1]):
        for c in range(kernel.shape[1]):
            result[(*at, c)] = dot(features[at], kernel[:, c])
    return result


def hint(teacher, student, projectors):
    """Mean of (f_t - ReLU(BatchNorm(f_s W)))^2, of given statistics; summed over layers."""
    values = np.zeros(len(pairs_of(teacher, student)[0][0]))
    for layers, (kernel, gamma, beta, means, variances) in zip(pairs_of(teacher, student), projectors, strict=True):
        f_t, f_s = of_one_size(*layers)
        normal = (linear(f_s, kernel) - means) / np.sqrt(variances + 1e-5) * gamma + beta
        for i, (target, row) in enumerate(zip(f_t, normal, strict=True)):
            values[i] += mean((max(b, 0.0) - a) ** 2 for a, b in zip(target.ravel(), row.ravel(), strict=True))
    return values


def variational_information(teacher, student, regressors):
    """Mean of 1/2 ((f_t - mu)^2 / v + log v), v of each channel; summed over layers."""
    values = np.zeros(len(pairs_of(teacher, student)[0][0]))
    for layers, (*kernels, variances) in zip(pairs_of(teacher, student), regressors, strict=True):
        f_t, f_s = of_one_size(*layers)
        for kernel in kernels[:-1]:
            f_s = np.maximum(linear(f_s, kernel), 0.0)
        mu = linear(f_s, kernels[-1])
        for i, (target, row) in enumerate(zip(f_t, mu, strict=True)):
            values[i] += mean(
                0.5 * ((target[at] - row[at]) ** 2 / variances[at[-1]] + math.log(variances[at[-1]]))
                for at in np.ndindex(target.shape)
            )
    return values


def flow_matrix(first, second):
    """(1 / hw) sum over positions of first (outer) second, of one sample."""
    first, second = first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1])
    return [mean(first[:, i] * second[:, j]) for i in range(first.shape[1]) for j in range(second.shape[1])]


def flow_of_solution(teacher, student):
    """Sum over consecutive layers of the mean of (G_s - G_t)^2; widths are equal already."""
    values = np.zeros(len(teacher[0]))
    for k in range(len(teacher) - 1):
        maps_t, maps_s = (of_one_size(*side[k : k + 2]) for side in (teacher, student))
        for i in range(len(values)):
            g_t, g_s = (flow_matrix(maps[0][i], maps[1][i]) for maps in (maps_t, maps_s))
            values[i] += mean((b - a) ** 2 for a, b in zip(g_t, g_s, strict=True))
    return values


def triplet(anchor, positive, negative, margin):
    """max(d(anchor, positive) - d(anchor, negative) + margin, 0)."""
    values = []
    for a, p, n in zip(anchor, positive, negative, strict=True):
        values.append(max(distance(a, p) - distance(a, n) + margin, 0.0))
    return np.array(values, "float64")


def contrast(anchor, positive, negatives, temperature, normalizer, samples):
    """NCE of one positive among noise: h = P / (P + N / M), P = exp(<., .> / T) / Z."""

    def log_odds(other):
        return dot(anchor, other) / temperature - math.log(normalizer) - math.log(len(negatives) / samples)

    return math.fsum(
        [math.log1p(math.exp(-log_odds(positive))), *(math.log1p(math.exp(log_odds(n))) for n in negatives)]
    )


def pair(anchor, partner, same, margin):
    """d^2 of a pair of one class, max(margin - d, 0)^2 of others."""
    distances = [distance(a, p) for a, p in zip(anchor, partner, strict=True)]
    values = [d**2 if of_one else max(margin - d, 0.0) ** 2 for d, of_one in zip(distances, same, strict=True)]
    return np.array(values, "float64")


def mined_triplet(anchor, student, labels, margin, miner):
    """Negatives by their distance from the anchor; each anchor's value is the mean over its negatives."""
    values = []
    for i, row in enumerate(anchor):
        positive = distance(row, student[i])
        negatives = [distance(row, z) for z, label in zip(student, labels, strict=True) if label != labels[i]]
        farther = [d for d in negatives if d > positive]
        if miner == "hard":
            negatives = negatives and [min(negatives)]
        elif miner == "semi_hard":
            negatives = negatives and [min(farther) if farther else max(negatives)]
        values.append(mean(max(positive - d + margin, 0.0) for d in negatives) if negatives else 0.0)
    return np.array(values, "float64")


def reduced(values, weights, reduction):
    """Keras's reductions of weighted values; `weights` None is Keras's `sample_weight=None`."""
    values = [float(value) for value in values]
    weights = [1.0] * len(values) if weights is None else [float(weight) for weight in weights]
    weighted = [value * weight for value, weight in zip(values, weights, strict=True)]
    if reduction in (None, "none"):
        return np.array(weighted)
    total = math.fsum(weighted)
    if reduction == "sum":
        return total
    if reduction in ("mean", "sum_over_batch_size"):
        return total / len(values)
    assert reduction == "mean_with_sample_weight"
    return total / math.fsum(weights) if any(weights) else 0.0


def slopes(function, x, h=1e-5):
    """Backward and forward differences of a scalar function, entry by entry: two arrays of `x`'s shape.

    Their mean is the central difference. At a kink the two differ, and a gradient lies between them.
    """
    backward, forward = np.zeros(x.shape), np.zeros(x.shape)
    here = function(x)
    for entry in np.ndindex(x.shape):
        for sign, slope in ((-1.0, backward), (1.0, forward)):
            moved = x.copy()
            moved[entry] += sign * h
            slope[entry] = (function(moved) - here) / (moved[entry] - x[entry])
    return backward, forward
