// Package alerts tests what Prometheus is given: the rules by promtool, and by a real
// Prometheus and Alertmanager that scrape the product at work on a lab.
//
// Their binaries are Debian's; prerequisites.sh unpacks them into .cache/monitoring.
package alerts
