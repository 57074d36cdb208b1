//! What a client says of its surfaces, kept until it commits.

use wayland_protocols::wp::presentation_time::server::wp_presentation_feedback::WpPresentationFeedback;
use wayland_protocols::xdg::shell::server::{xdg_popup::XdgPopup, xdg_surface::XdgSurface, xdg_toplevel::XdgToplevel};
use wayland_server::protocol::{wl_buffer::WlBuffer, wl_callback::WlCallback, wl_surface::WlSurface};

use super::planes::Overlay;

/// Callbacks and feedbacks that one surface may have outstanding; a client that asks for more is not answered.
pub const MAX_OUTSTANDING: usize = 256;

/// What a surface is for.
#[derive(Debug, Clone, Default)]
pub enum Role {
    /// Not said yet, or of no interest (subsurfaces, cursors).
    #[default]
    None,
    /// A window.
    Toplevel(XdgToplevel),
    /// A list or picker above a window, at this place and of this size.
    Popup {
        /// Its object.
        popup: XdgPopup,
        /// Left edge in the window.
        x: i32,
        /// Top edge in the window.
        y: i32,
        /// Width.
        width: i32,
        /// Height.
        height: i32,
    },
}

/// State of a `wl_surface`.
#[derive(Debug)]
pub struct Surface {
    /// Its object.
    pub object: WlSurface,
    /// Its role.
    pub role: Role,
    /// Its shell object.
    pub xdg: Option<XdgSurface>,
    /// The first configure was sent.
    pub configured: bool,
    /// It has shown a buffer.
    pub mapped: bool,
    /// Buffer attached since the last commit; `Some(None)` unmaps.
    pub attached: Option<Option<WlBuffer>>,
    /// Damage since the last commit: x, y, width, height.
    pub damage: Option<(i32, i32, i32, i32)>,
    /// Asked for with the next commit.
    pub callbacks: Vec<WlCallback>,
    /// Asked for with the next commit.
    pub feedbacks: Vec<WpPresentationFeedback>,
    /// Offset of the window inside the buffer.
    pub geometry: (i32, i32),
    /// What a popup shows.
    pub overlay: Option<Overlay>,
}

impl Surface {
    /// A new surface.
    pub fn new(object: WlSurface) -> Self {
        Self {
            object,
            role: Role::None,
            xdg: None,
            configured: false,
            mapped: false,
            attached: None,
            damage: None,
            callbacks: Vec::new(),
            feedbacks: Vec::new(),
            geometry: (0, 0),
            overlay: None,
        }
    }

    /// Adds a damaged rectangle.
    pub fn add_damage(&mut self, x: i32, y: i32, width: i32, height: i32) {
        let (right, bottom) = (x.saturating_add(width.max(0)), y.saturating_add(height.max(0)));
        self.damage = Some(match self.damage {
            None => (x, y, right.saturating_sub(x), bottom.saturating_sub(y)),
            Some((ox, oy, ow, oh)) => {
                let (left, top) = (x.min(ox), y.min(oy));
                let right = right.max(ox.saturating_add(ow));
                let bottom = bottom.max(oy.saturating_add(oh));
                (left, top, right.saturating_sub(left), bottom.saturating_sub(top))
            }
        });
    }
}

/// Where a popup wants to be (`xdg_positioner`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Positioner {
    /// Size of the popup.
    pub size: (i32, i32),
    /// Rectangle in the parent that it belongs to: x, y, width, height.
    pub anchor_rect: (i32, i32, i32, i32),
    /// Side of the rectangle: −1, 0 or 1 for each axis.
    pub anchor: (i32, i32),
    /// Direction in which the popup extends: −1, 0 or 1 for each axis.
    pub gravity: (i32, i32),
    /// Additional offset.
    pub offset: (i32, i32),
}

impl Positioner {
    /// Place in the parent, slid into a window of `width` × `height` where it would stick out.
    pub fn place(&self, width: i32, height: i32) -> (i32, i32) {
        let (x, y, w, h) = self.anchor_rect;
        let axis = |start: i32, len: i32, anchor: i32, gravity: i32, size: i32, offset: i32, limit: i32| {
            let at = i64::from(start) + i64::from(len) * i64::from(anchor + 1) / 2;
            let at = at + i64::from(size) * i64::from(gravity - 1) / 2 + i64::from(offset);
            at.min(i64::from(limit) - i64::from(size)).clamp(0, i64::from(limit.max(0))) as i32
        };
        (
            axis(x, w, self.anchor.0, self.gravity.0, self.size.0, self.offset.0, width),
            axis(y, h, self.anchor.1, self.gravity.1, self.size.1, self.offset.1, height),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_popup_hangs_below_its_anchor_and_slides_into_the_window() {
        let list = Positioner {
            size: (80, 146),
            anchor_rect: (10, 100, 70, 20),
            anchor: (-1, 1),
            gravity: (1, 1),
            offset: (0, 0),
        };
        assert_eq!(list.place(1280, 720), (10, 120));
        let low = Positioner { anchor_rect: (1250, 700, 70, 20), ..list };
        assert_eq!(low.place(1280, 720), (1200, 574));
        let tall = Positioner { size: (80, 2000), ..list };
        assert_eq!(tall.place(1280, 720).1, 0);
    }
}
