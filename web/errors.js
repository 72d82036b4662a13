/* Errors in words: what happened, and what to do. */

const BAD_PICTURE = {
  title: "The server cannot use this picture",
  todo: "Save it as an ordinary JPEG or PNG of medium size, or take another one.",
};

/* By code first, by status where there is none. `action` is a button of the message. */
const BY_CODE = {
  invalid_api_key: {
    title: "This server wants an API key",
    todo: "Enter the key that its operator gave you, then try again.",
    action: "settings",
  },
  loading: { title: "The model is still being loaded", todo: "This takes some seconds. Try again then.", action: "retry" },
  shutting_down: { title: "The server is stopping", todo: "Start it again with tamp serve, then try again.", action: "retry" },
  engine_unresponsive: {
    title: "The server does not move any more",
    todo: "Look into its log; starting it again helps.",
    action: "retry",
  },
  queue_full: { title: "The server is busy", todo: "Others are waiting already.", action: "retry" },
  queue_share: { title: "You have enough questions waiting", todo: "Others share this server. Wait for an answer first.", action: "retry" },
  queue_timeout: { title: "The server is busy", todo: "The question waited too long for its turn.", action: "retry" },
  context_length_exceeded: {
    title: "This is too long for the model",
    todo: "Start a new chat, send fewer pictures, or pack them harder with the slider.",
  },
  body_too_large: { title: "The pictures are too large together", todo: "Send fewer, or smaller ones." },
  answer_too_large: { title: "The answer would be too large", todo: "Ask for a shorter one under Settings." },
  too_many_images: { title: "Too many pictures", todo: "Send fewer at once." },
  image_input_unsupported: {
    title: "This model reads text only",
    todo: "Take the pictures away, or serve a model with its mmproj file.",
  },
  unsupported_image: BAD_PICTURE,
  unsupported_colorspace: BAD_PICTURE,
  image_decode_failed: BAD_PICTURE,
  image_truncated: BAD_PICTURE,
  image_bomb: BAD_PICTURE,
  image_too_small: BAD_PICTURE,
  image_too_large: BAD_PICTURE,
  image_aspect: BAD_PICTURE,
  stream_broken: {
    title: "The answer broke off",
    todo: "The connection ended before the answer did. Is the server still running?",
    action: "retry",
  },
};

const BY_STATUS = {
  0: { title: "The server cannot be reached", todo: "Is tamp serve still running? Then try again.", action: "retry" },
  403: { title: "The server refuses this page", todo: "Open it under the address that tamp serve printed." },
  408: { title: "Sending took too long", todo: "Try again, or send smaller pictures.", action: "retry" },
  429: BY_CODE.queue_full,
  500: { title: "Something in the server failed", todo: "Its log says more; the question may work again.", action: "retry" },
  503: { title: "The server is not ready", todo: "Try again in a moment.", action: "retry" },
};

/* {title, detail, todo, action}; detail is the server's own sentence, where it sent one. */
export function explain(error) {
  const known = BY_CODE[error.code] ?? BY_STATUS[error.status];
  const said = error.message ?? "";
  const wait = error.retryAfter > 0 ? ` It suggests to wait ${error.retryAfter} s.` : "";
  if (!known) {
    const where = error.param ? ` (${error.param})` : "";
    return {
      title: "The server did not take this",
      detail: said + where,
      todo: "Change the question or the settings, then try again.",
      action: "retry",
    };
  }
  return { title: known.title, detail: said, todo: known.todo + wait, action: known.action ?? null };
}
