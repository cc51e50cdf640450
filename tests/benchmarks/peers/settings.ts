// What the Deno contenders are told by their environment.

function required(name: string): string {
  const value = Deno.env.get(name);
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

export const settings = {
  port: Number(required("PORT")),
  supabaseUrl: required("SUPABASE_URL"),
  secretKey: required("SUPABASE_SECRET_KEY"),
  engineUrl: required("SCENARIO_ENGINE_URL"),
  engineToken: required("SCENARIO_ENGINE_TOKEN"),
  scenarioTypes: required("SCENARIO_TYPES").split(","),
  inFlight: Number(required("IN_FLIGHT")),
  usersPerCall: Number(required("USERS_PER_CALL")),
  typesPerCall: Number(required("TYPES_PER_CALL")),
};
