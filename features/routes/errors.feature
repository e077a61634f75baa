Feature: What goes wrong is told without crying wolf
  A 404 and a 422 are the client's doing: the server's span stays Unset (semantic conventions, HTTP server spans).

  Scenario: A missing file is a 404, an error of the storage call, and not one of the server
    When a client sends GET /files/missing.txt
    Then the response status is 404
    And the response body is the JSON
      """
      {"detail": "Could not find file: missing.txt"}
      """
    And the trace has a SERVER span "GET /files/{path}" with status Unset
    And the span "/GetObject$/" has the event "exception"
    And the trace has a span "/GetObject$/" with status Error
    And the log line "File not found" belongs to the span "GET /files/{path}"
    And the request is correlated

  Scenario: A request without its parameter is a 422 and reaches no storage
    When a client sends POST /files/a.txt
    Then the response status is 422
    And the trace has a SERVER span "POST /files/{path}" with status Unset
    And the trace has no span "/Object/"
    And the request is correlated

  Scenario: A path that nobody serves has a trace too, named by its method alone
    When a client sends GET /nope
    Then the response status is 404
    And the trace has a SERVER span "GET" with the attributes
      | attribute                 | value |
      | http.response.status_code | 404   |
    And the span "GET" has no attribute "http.route"
    And the request is correlated
