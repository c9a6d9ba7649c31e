//go:build tools

// Package tools names the program that the chart is tested with, so that go.mod pins what it is built from.
package tools

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
