@http
Feature: Shutdown loses nothing

  Scenario Outline: What was queued is exported after <signal>
    When a client sends GET /files/
    And the service is stopped with <signal>
    Then the trace is whole
    And the request is correlated
    And the log lines and the exported log records agree
    And the metric "http.server.request.duration" counts 1 request with the attributes
      | attribute  | value      |
      | http.route | "/files/" |

    Examples:
      | signal  |
      | SIGTERM |
      | SIGINT  |
