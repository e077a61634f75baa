@lambda
Feature: Telemetry survives the freeze
  Lambda stops the execution environment as soon as the runtime has asked for the next event. What was not exported by
  then comes late, or never.

  Scenario: Everything of an invocation has left before its freeze
    When a client sends GET /files/
    Then all telemetry of the request arrived before the freeze

  Scenario: A warm invocation after a cold one has a trace of its own
    Given the next invocation is a cold start
    When a client sends GET /healthcheck
    Then it was a cold start
    And the request is correlated
    When a client sends GET /healthcheck
    Then the request is correlated
