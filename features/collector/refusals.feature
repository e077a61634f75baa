@process @http
Feature: The service outlives a collector that refuses
  What the OTLP specification asks of an exporter: to send again what it may, to wait as long as it is told, and to drop
  what was refused for good. The service's users notice none of it.

  Background:
    When a client sends GET /files/ 5 times

  Scenario Outline: <signal> that are refused for now are sent again
    Given the collector refuses the next 2 <signal> requests with <status>
    When a client sends GET /files/ 5 times
    Then nothing is lost
    And nothing arrives twice
    And the service answers as before

    Examples:
      | signal | status |
      | traces | 503    |
      | traces | 502    |
      | logs   | 503    |

  Scenario Outline: An exporter that is asked to wait after <status> waits, and loses nothing
    Given the collector refuses the next 1 traces request with <status> and asks to wait 1 s
    And the collector refuses the next 1 logs request with <status> and asks to wait 1 s
    When a client sends GET /files/ 5 times
    Then nothing is lost
    And nothing arrives twice
    And the service answers as before

    Examples:
      | status |
      | 503    |
      | 429    |

  @except:no-orphan @except:ids-resolve
  Scenario: Metrics that are refused for good are dropped, and nothing else is
    The exceptions: a refusal that is permanent takes telemetry away, and what is left may name what was refused.

    Given the collector refuses the next 2 metrics requests with 400
    When a client sends GET /files/ 5 times
    Then nothing is lost
    And nothing arrives twice
    And the service answers as before

  @except:no-orphan @except:ids-resolve
  Scenario Outline: <signal> that are refused for good are not sent again
    The exceptions: a refusal that is permanent takes telemetry away, and what is left may name what was refused.

    Given the collector refuses the next 1 <signal> request with 400
    When a client sends GET /files/ 5 times
    Then what the collector refused for good is not sent again
    And the service answers as before

    Examples:
      | signal |
      | traces |
      | logs   |

  Scenario: A partial success is not sent again
    Given the collector calls one item of the next 2 traces requests rejected
    And the collector calls one item of the next 2 logs requests rejected
    When a client sends GET /files/ 5 times
    Then what the collector refused for good is not sent again
    And nothing arrives twice
    And nothing is lost
    And the service answers as before
