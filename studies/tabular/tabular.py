"""Trains a classifier of breast tumours with scikit-learn; the study's seed draws the split."""

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

MODELS = {
    "svm": lambda strength, seed: SVC(C=strength, random_state=seed),
    "linear": lambda strength, seed: LogisticRegression(C=strength, max_iter=10_000, random_state=seed),
    "forest": lambda strength, seed: RandomForestClassifier(random_state=seed),
}


def train(settings, seed, report):
    chosen = settings["training"]
    inputs, labels = load_breast_cancer(return_X_y=True)
    parts = train_test_split(inputs, labels, test_size=0.3, random_state=seed, stratify=labels)
    train_inputs, test_inputs, train_labels, test_labels = parts
    scaling = [StandardScaler()] if chosen["scale"] else []
    model = make_pipeline(*scaling, MODELS[chosen["model"]](chosen["strength"], seed))
    model.fit(train_inputs, train_labels)
    report(train_accuracy=model.score(train_inputs, train_labels))
    predicted = model.predict(test_inputs)
    return {
        "test_accuracy": model.score(test_inputs, test_labels),
        "macro_f1": f1_score(test_labels, predicted, average="macro"),
        "balanced_accuracy": balanced_accuracy_score(test_labels, predicted),
    }
