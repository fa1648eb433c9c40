"""Networks on signals, sets, graphs and tables in PyTorch, tiny and with random weights."""

# mypy: ignore-errors

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .torch_models_cnn import conv


class ConvolutionalRecurrent(nn.Module):
    """Convolutions over a spectrogram, two recurrent layers over its time."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(conv(1, 6, 3, (2, 1)), conv(6, 8, 3, (2, 1)))
        self.first, self.second = nn.GRU(16, 8, batch_first=True), nn.LSTM(8, 6, batch_first=True)
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        x = self.body(x).permute(0, 3, 1, 2).flatten(2)
        return self.last(self.second(self.first(x)[0])[0][:, -1])


class Tagger(nn.Module):
    """Tokens through an LSTM of both directions."""

    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(20, 6), nn.Linear(12, 3)
        self.body = nn.LSTM(6, 6, bidirectional=True, batch_first=True)

    def forward(self, tokens):
        return self.last(self.body(self.words(tokens))[0])


class GatedMlp(nn.Module):
    """gMLP: half of the hidden channels, mixed between tokens, gate the others."""

    def __init__(self):
        super().__init__()
        self.first, self.up = nn.Linear(6, 12), nn.Linear(12, 20)
        self.mix, self.down, self.last = nn.Conv1d(8, 8, 1), nn.Linear(10, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.first(x)
        u, v = functional.gelu(self.up(x)).chunk(2, -1)
        return self.last((x + self.down(u * self.mix(v))).mean(1))


class PointNet(nn.Module):
    """Points through shared layers, a learned transform of the features, the maximum over the points."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Conv1d(3, 8, 1), nn.ReLU()), nn.Linear(12, 4)
        self.pose = nn.Sequential(nn.Conv1d(8, 10, 1), nn.ReLU())
        self.matrix, self.second = nn.Linear(10, 64), nn.Sequential(nn.Conv1d(8, 12, 1), nn.ReLU(), nn.Conv1d(12, 12, 1))

    def forward(self, x):
        x = self.first(x)
        matrix = self.matrix(self.pose(x).max(2)[0]).view(-1, 8, 8) + torch.eye(8)
        x = torch.bmm(x.transpose(2, 1), matrix).transpose(2, 1)
        return self.last(self.second(x).max(2)[0])


class GraphConvolutions(nn.Module):
    """Features mixed between the nodes of a graph whose adjacency is an input."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in ((5, 12), (12, 10), (10, 8)))
        self.skip = nn.Linear(12, 8)

    def forward(self, x, adjacency):
        a = functional.relu(self.layers[0](adjacency @ x))
        b = functional.relu(adjacency @ self.layers[1](a))
        return self.layers[2](b) + self.skip(a)


class Recurrent(nn.Module):
    """A gated recurrent cell, unrolled over a few steps."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(8, 3)
        self.gates, self.new_x, self.new_h = nn.Linear(14, 16), nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = functional.relu(self.first(x))
        h = x.new_zeros(1, 8)
        for step in range(4):
            r, z = torch.sigmoid(self.gates(torch.cat([x[:, step], h.expand(x.shape[0], -1)], 1))).chunk(2, 1)
            new = torch.tanh(self.new_x(x[:, step]) + r * self.new_h(h))
            h = (1 - z) * new + z * h
        return self.last(h)


class Recommender(nn.Module):
    """Embeddings of users and items, factorization and a tower."""

    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(10, 8), nn.Embedding(12, 8)
        self.tower = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU())
        self.last = nn.Linear(16, 1)

    def forward(self, user, item):
        u, v = self.users(user), self.items(item)
        return torch.sigmoid(self.last(torch.cat([u * v, self.tower(torch.cat([u, v], 1))], 1)))
