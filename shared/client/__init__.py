"""
The subscriber's side of the metrics socket, for Python users.

    with PipelineClient() as client:
        client.subscribe("BTCUSDT")
        for topic, payload in client:
            print(client.get_tpm("BTCUSDT", "60s"), client.get_snapshot("BTCUSDT"))

``AsyncPipelineClient`` is the same for asyncio.
"""

from bybit_pipeline.shared.client.asynchronous import AsyncPipelineClient
from bybit_pipeline.shared.client.blocking import PipelineClient
from bybit_pipeline.shared.client.values import Metric, Snapshot, Wall

__all__ = ["AsyncPipelineClient", "Metric", "PipelineClient", "Snapshot", "Wall"]
