# Nothing but the statically linked binary: no base image, no registry.
FROM scratch
COPY serverless-axum /serverless-axum
EXPOSE 8000
ENTRYPOINT ["/serverless-axum"]
