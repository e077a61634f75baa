Feature: No request among many is without its trace
  One request is correlated easily. Under load batches fill, queues overflow and workers take turns, and that is where
  spans and lines are lost or mixed up.

  @http
  Scenario: Every request of a soak is correlated
    When 8 clients send 500 requests GET /healthcheck, each with its own trace
    Then each request of the soak has a complete, correlated trace

  @lambda
  Scenario: Every invocation of a soak is correlated
    When 2 clients send 50 requests GET /healthcheck, each with its own trace
    Then each request of the soak has a complete, correlated trace
