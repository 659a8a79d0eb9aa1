// Package attachment is the reconciler of attachments that no migration explains.
// Its key is the PersistentVolume; it gathers a snapshot of the volume, lets package
// unexplained decide, and has package report say so on the claim. It keeps a table of
// the volumes, from which the gauges are computed at scrape time. It works without
// KubeVirt all the same; where there is KubeVirt a second, smaller reconciler, keyed by
// the VMI, has a Speaker (package vmireport) say on it what stands about its volumes.
//
// It may import controllers/gather, controllers/unexplained, controllers/report,
// controllers/dualattach (for its Event), controllers/vmicondition, controllers/retry and
// controller-runtime. It never asks an array.
package attachment
