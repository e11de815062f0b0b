import pytest
import torch

from engine.device import Normalization, choose_device
from engine.scoring import head_network
from models.build import build
from models.catalog import FAMILIES

pytestmark = pytest.mark.numeric


def test_a_head_on_cached_features_has_the_dropout_of_its_model():
    torch.manual_seed(0)
    model = build("resnet", 10, n_classes=3, resnet_widen_factor=0.125, dropout=0.5).train()
    device = choose_device(
        no_cuda=True, precision="fp32", normalization=Normalization.of("kinetics")
    )
    head = FAMILIES["resnet"].head
    network = head_network(model, head, device)
    features = torch.rand(4, model.fc.in_features)
    torch.manual_seed(1)
    logits = network.module(features)
    torch.manual_seed(1)
    torch.testing.assert_close(logits, model.fc(torch.dropout(features, 0.5, True)))
    scores = network.make_scorer(model)(features)  # validation, while the model trains
    torch.testing.assert_close(scores, model.fc(features))
