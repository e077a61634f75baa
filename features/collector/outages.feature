@process @http
Feature: The service outlives a collector that is slow, silent or gone

  Background:
    When a client sends GET /files/ 5 times

  Scenario: A slow collector does not make users wait
    Given the collector takes 700 ms to answer requests for 4 s
    When a client sends GET /files/ 20 times
    Then the service answers as before
    And nothing is lost
    And nothing arrives twice
    And the memory of the service grows by at most 64 MB

  Scenario: A collector that hangs does not make users wait
    Given the collector hangs on requests for 4 s
    When a client sends GET /files/ 20 times
    Then the service answers as before
    And nothing is lost
    And nothing arrives twice
    And the memory of the service grows by at most 64 MB

  @not-grpc-exporter
  Scenario: What was under way on a connection that is reset is sent again
    Not over gRPC: there opentelemetry-rust takes a connection that broke under a call for UNKNOWN, which the OTLP
    specification calls permanent, and drops the batch.

    Given the collector resets the connection of the next 1 traces request
    And the collector resets the connection of the next 1 logs request
    When a client sends GET /files/ 5 times
    Then nothing is lost
    And nothing arrives twice
    And the service answers as before

  Scenario: A collector that goes away for a moment is found again
    Given the collector goes away
    When a client sends GET /files/ 3 times
    And the collector comes back
    Then nothing is lost
    And nothing arrives twice
    And the service answers as before
