# Nothing but the statically linked binary: no base image, no registry.
FROM scratch
COPY tracegate /tracegate
EXPOSE 4317 4318
ENTRYPOINT ["/tracegate", "serve", "--host", "0.0.0.0"]
