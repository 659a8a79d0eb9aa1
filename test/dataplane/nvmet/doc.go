// Package nvmet makes a guest's kernel export files over NVMe/TCP, as the array
// would: through configfs, on loop devices with sectors of 512 bytes. How the array
// identifies its namespaces, how it switches an export off, when a grown size shows
// and what comes first at boot is not documented for the real one, so each is a
// choice of Behaviour.
//
// It runs inside the array guest; the agent passes it requests.
package nvmet
