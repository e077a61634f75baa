Feature: A function of another language and runtime

  Scenario: An invocation is one trace under the runtime's header
    When a client sends GET /orders/7
    Then the response status is 200
    And the response body is the JSON
      """
      {"number": 7}
      """
    And the trace ID is that of the caller
    And the trace hangs on the span in the runtime's trace header
    And the trace has the shape
      """
      SERVER        orders                faas.trigger=http
        INTERNAL    GET /orders/{number}
          INTERNAL  read order            order.number=7
          ...
      """
    And the request is correlated

  Scenario: Log lines and exported log records are the same, and on their spans
    When a client sends GET /orders/404
    Then the response status is 404
    And the log line "no such order: 404" belongs to the span "read order"
    And the log line "no such order: 404" has the level "ERROR"
    And the log lines and the exported log records agree
    And the request is correlated

  Scenario: Everything of an invocation has left before its freeze
    When a client sends GET /orders/8
    Then all telemetry of the request arrived before the freeze

  Scenario: A cold start and a warm invocation have traces of their own
    Given the next invocation is a cold start
    When a client sends GET /orders/1
    Then it was a cold start
    And the request is correlated
    When a client sends GET /orders/2
    Then the request is correlated
