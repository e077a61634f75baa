Feature: A request whose steps say nothing of its telemetry is judged by the invariants
  What is wrong here is found without a step that looks for it.

  @alone
  Scenario: A listing
    When a client sends GET /files/
    Then the response status is 200

  @alone
  Scenario: A missing file
    When a client sends GET /files/missing.txt
    Then the response status is 404

  @alone
  Scenario: A file whose name is a number
    When a client sends GET /files/4711
    Then the response status is 404

  @alone
  Scenario: A file that is written
    When a client sends POST /files/written.txt?content=hello
    Then the response status is 200

  @alone
  Scenario: What the caller does not sample
    Given the client does not sample its trace
    When a client sends GET /files/
    Then the response status is 200

  @alone
  Scenario: Requests at the same time
    When 8 clients send GET /files/ at the same time
    Then the response status is 200

  @bucket
  Scenario: A request that calls out
    When a client sends GET /files/
    Then the response status is 200

  @http @not-workers
  Scenario: A request that is counted
    When a client sends GET /files/
    Then the metric "http.server.request.duration" is exported

  @http @not-workers
  Scenario: Requests that are counted one after the other
    When a client sends GET /files/
    Then the metric "http.server.request.duration" counts 1 request with the attributes
      | attribute  | value   |
      | http.route | "/files/" |
    When a client sends GET /files/
    Then the metric "http.server.request.duration" counts 2 requests with the attributes
      | attribute  | value   |
      | http.route | "/files/" |
