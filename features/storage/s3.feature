@bucket
Feature: Calls to S3 are client spans that carry the trace on

  Scenario: A listing calls S3
    When a client sends GET /files/
    Then the response body is the JSON
      """
      {"files": ["a.txt"]}
      """
    And the trace has the shape
      """
      SERVER    GET /files/        http.response.status_code=200
        CLIENT  S3.ListObjectsV2   rpc.system=aws-api  rpc.service=S3  rpc.method=ListObjectsV2
      """
    And the call to "s3" carries the trace on from the span "S3.ListObjectsV2"
    And every call to "s3" carries the trace on
    And the request is correlated

  Scenario: A missing object marks the call and not the request
    When a client sends GET /files/missing.txt
    Then the response status is 404
    And the trace has a CLIENT span "S3.GetObject" with status Error
    And the trace has a SERVER span "GET /files/{path}" with status Unset
    And the call to "s3" carries the trace on from the span "S3.GetObject"
