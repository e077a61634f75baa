Feature: The caller's trace is carried on, in whichever header it comes

  Scenario: Both headers
    When a client sends GET /healthcheck
    Then the trace ID is that of the caller
    And the request is correlated

  Scenario: W3C only
    Given the client sends its trace context in W3C headers
    When a client sends GET /healthcheck
    Then the trace ID is that of the caller
    And the request is correlated

  Scenario: X-Ray only
    Given the client sends its trace context in the X-Ray header
    When a client sends GET /healthcheck
    Then the trace ID is that of the caller
    And the request is correlated

  Scenario: An X-Ray root without a parent, as API Gateway adds it
    Given the client sends only the root of its trace in the X-Ray header
    When a client sends GET /healthcheck
    Then the trace ID is that of the caller
    And the request is correlated

  @http
  Scenario: The entry span hangs on the caller's span
    When a client sends GET /healthcheck
    Then the trace hangs on the caller's span

  @lambda
  Scenario: The invocation's span hangs on the runtime's span, not on the client's
    When a client sends GET /healthcheck
    Then the trace hangs on the span in the runtime's trace header

  @lambda
  Scenario: Without a caller the invocation is in the trace of the root that the gateway put into the event
    Given the client sends no trace context
    When a client sends GET /healthcheck
    Then the trace ID is that of the event's X-Amzn-Trace-Id header
    And the trace hangs on the span in the runtime's trace header

  @http
  Scenario: Without a caller the service starts a trace of its own
    Given the client sends no trace context
    When a client sends GET /healthcheck
    Then the service started a trace of its own
    And the request is correlated

  Scenario: What the caller does not sample is not exported, and the lines still name its trace
    Given the client does not sample its trace
    When a client sends GET /healthcheck
    Then the response status is 200
    And no span is exported for the request
    And every log line of the request carries the trace ID and the ID of a span in it

  @http
  Scenario: Requests over one connection never share a trace
    Given the client keeps its connection open
    When a client sends GET /files/?directory_path=a 5 times
    Then the request is correlated

  Scenario: Concurrent requests never share a trace
    When 16 clients send GET /files/?directory_path=a at the same time
    Then the response status is 200
    And the request is correlated
