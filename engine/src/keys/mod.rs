//! Keys: the device's own.
mod device;

pub use device::DeviceKey;
