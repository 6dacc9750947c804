// Builds actionlint for `make check-workflows`.
module quickcomm.local/actionlint

go 1.24

tool github.com/rhysd/actionlint/cmd/actionlint

require github.com/rhysd/actionlint v1.7.12
