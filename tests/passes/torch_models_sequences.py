"""Networks on signals, sets, graphs and tables in PyTorch, tiny and with random weights."""

# mypy: ignore-errors

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


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
