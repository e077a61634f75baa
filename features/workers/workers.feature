@workers
Feature: Worker processes are instrumented, not only their parent
  The document's uvicorn problem: the parent is instrumented, and the children that answer are not.

  Scenario: Every worker shows itself
    When a client sends GET /healthcheck
    Then every worker process exports spans

  Scenario: Requests are correlated whichever worker takes them
    When 24 clients send GET /healthcheck at the same time
    Then the request is correlated
