// Package install tests the operator as it is installed: config/default applied to an
// empty cluster, a Secret, one RDSDriver. What it deploys is looked at, not run.
package install
