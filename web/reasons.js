/* Why a stage did not act, in words; the codes are those of docs/compression.md. */
const REASONS = {
  detail_high: "was asked for in full",
  too_few_rows: "too few rows to merge",
  all_protected: "nothing in it may merge",
  too_short: "too short to be worth it",
  not_calibrated: "this model was not measured for it",
  nothing_similar: "nothing alike enough",
  out_of_memory: "no memory for the work",
  projector_needs_grid: "this model needs every patch",
  no_question: "no question to choose by",
  text_heavy: "mostly print, left alone",
  protected_area: "protected areas need full size",
  no_grid: "the method needs the whole grid",
  no_attention: "the tower does not say what it looked at",
  cutoff_out_of_range: "the model has no such block",
};

const STAGES = {
  pixels: "Picture size",
  "vit-layer": "Picture patches",
  "image-rows": "Picture rows",
  "text-rows": "Text",
  "lm-layer": "Inside the model",
};

export const reasonWords = (code) => REASONS[code] ?? code.replaceAll("_", " ");
export const stageWords = (stage) => STAGES[stage] ?? stage;
