"""The proxy between this pipeline and the exchange, to check and to show it before the start."""

from collections.abc import Mapping

from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.network.address import parse_url
from bybit_pipeline.shared.network.proxies import ALLOWED, Proxy, ProxyInvalid, proxy_for
from bybit_pipeline.supervisor.plan.names import fill_category
from bybit_pipeline.supervisor.plan.plan import Plan


def proxy_in_force(plan: Plan, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """
    The proxy of the connectors; None if they connect directly.

    Args:
        plan: The plan at the start.
        environ: The environment; this process's own by default.

    Raises:
        ConfigError: If the environment names a proxy that cannot be used.
    """
    if not plan.url:  # the simulator has no address yet; it runs here
        return None
    address = parse_url(fill_category(plan.url, plan.first_category))
    try:
        return proxy_for(address, plan.config.connector.proxy, environ)
    except ProxyInvalid as error:
        raise ConfigError(error.origin, error.what, ALLOWED) from error
