"""Models on other machines: TVM's RPC tracker and servers, and what is done when a board is lost."""
