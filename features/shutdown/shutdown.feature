@http
Feature: Shutdown loses nothing

  Scenario Outline: What was queued is exported after <signal>
    When a client sends GET /files/
    And the service is stopped with <signal>
    Then the trace is whole
    And the request is correlated

    Examples:
      | signal  |
      | SIGTERM |
      | SIGINT  |
