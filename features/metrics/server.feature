Feature: Server metrics count what was asked

  @not-workers
  Scenario: Request durations are recorded by route and status
    When a client sends GET /files/
    Then the metric "http.server.request.duration" has a data point with the attributes
      | attribute                 | value   |
      | http.request.method       | GET     |
      | http.route                | "/files/" |
      | http.response.status_code | 200     |
    And the metric "http.server.request.duration" counts 1 request with the attributes
      | attribute  | value   |
      | http.route | "/files/" |
